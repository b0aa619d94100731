"""The module that is exported for segmentors; imports mmseg."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..graphs import Normalise


class Segmentor(nn.Module):
    """Logits of each pixel, (B, classes, H, W), of the whole image, without sliding windows."""
    axes = {'logits': {0: 'batch', 2: 'height', 3: 'width'}}

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.model = Normalise(model), model
        self.of_queries = hasattr(model.decode_head, 'pixel_decoder')  # Mask2Former's head, which stands on mmdet
        if self.of_queries:
            from ..mmdet.deformable import replace_deformable
            replace_deformable(model)
        for module in model.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                    setattr(module, name, AdaptiveAvgPool(child.output_size))

    def forward(self, image: Tensor) -> Tensor:
        inputs = self.normalise(image)
        if self.of_queries:
            return self._of_queries(inputs)[:, :, :image.shape[2], :image.shape[3]]
        logits = self.model(inputs, mode='tensor')
        return F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=self.model.align_corners)

    def _of_queries(self, inputs: Tensor) -> Tensor:
        """What mmseg's ``Mask2FormerHead`` predicts, in the size of the inputs."""
        logits, masks = (outputs[-1] for outputs in self.model.decode_head(self.model.extract_feat(inputs), []))
        masks = F.interpolate(masks, inputs.shape[2:], mode='bilinear', align_corners=False)
        return torch.einsum('bqc,bqhw->bchw', logits.softmax(-1)[..., :-1], masks.sigmoid())

    def reference(self, model: nn.Module, pictures: list[Tensor]) -> list[Tensor]:
        """mmseg's logits for whole pictures (C, H, W), colours BGR."""
        shape = tuple(pictures[0].shape[1:])
        samples = [SegDataSample(metainfo=dict(ori_shape=shape, img_shape=shape)) for _ in pictures]
        model.test_cfg = ConfigDict(mode='whole')
        found = model.test_step(dict(inputs=pictures, data_samples=samples))
        return [torch.stack([sample.seg_logits.data for sample in found])]


class AdaptiveAvgPool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products: ONNX has no such operator for maps of any size."""

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._shares(cells, length) for cells, length in zip(self.size, x.shape[2:]))
        return rows @ x @ columns.t()

    @staticmethod
    def _shares(cells: int, length: int) -> Tensor:
        """(cells, length): the weight of each position in the mean of each cell."""
        cell, position = torch.arange(cells)[:, None], torch.arange(length)
        first, last = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
        return ((position >= first) & (position < last)).float() / (last - first).float()
