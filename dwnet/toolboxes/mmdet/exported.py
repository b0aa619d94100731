"""A detector whose network is an exported file; imports mmdet."""
import torch
import torch.nn.functional as F
from mmdet.models import BaseDetector, FCNMaskHead
from mmdet.structures import DetDataSample
from mmdet.structures.mask import mask2bbox
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from ..base import Network

LEAST = 1e-6  # a probability of 0 has no logit


class ExportedDetector(BaseDetector):
    """Brings the boxes, masks and segments of the file to the pixels of the image.

    The arguments are those of :meth:`dwnet.toolboxes.base.Toolbox.exported_model`.
    """
    loss = extract_feat = _forward = None  # an exported file only predicts

    def __init__(self, network: Network, model: dict, data_preprocessor: dict) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.network = network
        self.test_cfg = model.get('test_cfg') or {}
        # pastes masks into the image; its layers are not used
        self.pasting = FCNMaskHead(num_convs=0, in_channels=1, conv_out_channels=1, class_agnostic=True)

    def predict(self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]) -> list[DetDataSample]:
        for image, sample in zip(batch_inputs, batch_data_samples):
            height, width = sample.img_shape[:2]  # the batch is padded to its largest image
            outputs = self.network(image[None, :, :height, :width])
            if 'panoptic' in outputs:
                segments = F.interpolate(outputs['panoptic'][None, None].double(), sample.ori_shape[:2],
                                         mode='nearest-exact')
                sample.pred_panoptic_seg = PixelData(sem_seg=segments[0].int())
            if 'scores' in outputs:
                sample.pred_instances = self._instances(outputs, sample)
        return batch_data_samples

    def _instances(self, outputs: dict[str, Tensor], sample: DetDataSample) -> InstanceData:
        found = InstanceData(bboxes=outputs['boxes'], scores=outputs['scores'], labels=outputs['labels'])
        if 'image_masks' in outputs:  # mmdet resizes logits
            logits = F.interpolate(outputs['image_masks'].logit(LEAST)[:, None], sample.ori_shape[:2], mode='bilinear')
            found.masks = logits[:, 0] > 0
            found.bboxes = mask2bbox(found.masks)
        elif 'masks' in outputs:  # the method scales the boxes, too, and begins with a sigmoid
            self.pasting.predict_by_feat([outputs['masks'].logit()[:, None]], [found], [sample.metainfo],
                                         self.test_cfg['rcnn'], rescale=True)
        else:
            found.bboxes = found.bboxes / torch.tensor(sample.scale_factor, dtype=found.bboxes.dtype).repeat(2)
        return found
