"""A detector with queries as one graph, without NMS: DETR, Conditional DETR, DAB-DETR, Deformable DETR, DINO.

The transformer is mmdet's. The sizes of its maps are numbers here and not values of a tensor, which a graph cannot have
as sizes, and images have no padding to be masked.
"""
import torch
from mmdet.models.dense_heads import DDQDETRHead, DETRHead
from mmdet.models.detectors import DeformableDETR
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from dwnet.errors import UserError

from .deformable import replace_deformable
from .detector_graph import DetectorGraph, clip


class QueryDetector(DetectorGraph):
    """(1, C, H, W) → boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,), labels (N,) of the N best queries."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        head = model.bbox_head
        single = '_predict_by_feat_single'
        if getattr(type(head), single, None) is not getattr(DETRHead, single) or isinstance(head, DDQDETRHead):
            raise UserError(f'{type(model).__name__} with a {type(head).__name__} cannot be written as ONNX: that head '
                            'has its own way from queries to boxes; the backbone alone can, by --backbone')
        if self.normalise.divisor > 1:
            raise UserError(f'{type(model).__name__} cannot be written as ONNX with pad_size_divisor='
                            f'{self.normalise.divisor}: set data_preprocessor.pad_size_divisor=1')
        replace_deformable(model)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head, size = self.model.bbox_head, image.shape[2:]
        maps = self.model.extract_feat(self.normalise(image))
        logits, boxes = (outputs[-1][0] for outputs in head(**self._decode(maps, size)))  # of the last layer
        if head.loss_cls.use_sigmoid:
            scores, order = logits.sigmoid().flatten().topk(head.test_cfg.get('max_per_img', len(logits)))
            labels, query = order % head.num_classes, order // head.num_classes
        else:
            scores, labels = logits.softmax(-1)[:, :-1].max(-1)
            scores, query = scores.topk(head.test_cfg.get('max_per_img', len(logits)))
            labels = labels[query]
        height, width = (torch.scalar_tensor(length, dtype=boxes.dtype, device=boxes.device) for length in size)
        boxes = bbox_cxcywh_to_xyxy(boxes[query]) * torch.stack([width, height, width, height])
        return clip(boxes, size), scores, labels

    def _decode(self, maps: tuple[Tensor, ...], size: torch.Size) -> dict[str, Tensor]:
        """What mmdet's ``forward_transformer`` gives to the head."""
        model = self.model
        sample = DetDataSample(metainfo=dict(batch_input_shape=size, img_shape=size))
        encoder, decoder = model.pre_transformer(maps, [sample])
        if isinstance(model, DeformableDETR):
            for inputs in (encoder, decoder):
                inputs['spatial_shapes'] = [tuple(level.shape[2:]) for level in maps]
        decoder_inputs, _ = model.pre_decoder(**model.forward_encoder(**encoder))
        return model.forward_decoder(**(decoder | decoder_inputs))

    def find_more(self, model: nn.Module, photographs: list[Tensor]) -> None:
        """There is no threshold: the best queries are the output."""
