"""A segmentor whose network is an exported file; imports mmseg."""
from mmseg.models import EncoderDecoder
from torch import Tensor, nn

from ..base import Network, as_list


class ExportedSegmentor(EncoderDecoder):
    """mmseg's segmentor around the logits of the file: whole images, sliding windows, and the resizing to the image.

    The arguments are those of :meth:`dwnet.toolboxes.base.Toolbox.exported_model`. Of the head only the settings count.
    """

    def __init__(self, network: Network, model: dict, data_preprocessor: dict) -> None:
        super().__init__(backbone=dict(type=nn.Identity), decode_head=as_list(model['decode_head'])[-1],
                         test_cfg=model['test_cfg'], data_preprocessor=data_preprocessor)
        self.network = network

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        return self.network(inputs)['logits']
