"""A one-stage detector as one graph, NMS included: RetinaNet, FCOS, ATSS, GFL, RTMDet, YOLOX and their kin.

mmdet's functions behind the heads branch on the number of boxes. This module computes the same for one image, in
operators that ONNX has. The best ``nms_pre`` scores are taken first and the threshold after it, which leaves the same
boxes, and one size that depends on values.
"""
from collections.abc import Callable
from typing import NamedTuple

import torch
from mmdet.models.dense_heads import GFLHead, YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.necks import YOLOXPAFPN, CSPNeXtPAFPN
from mmengine.config import ConfigDict
from torch import Tensor, nn

from dwnet.errors import UserError

from .detector_graph import DetectorGraph, clip, flatten, refuse_other_nms, suppress

MULTIPLE = 32  # to which images are padded for necks that need it
# What a head does behind its convolutions
_METHODS = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')


class Candidates(NamedTuple):
    """Boxes before NMS: ``valid`` are those over the thresholds."""
    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,)
    labels: Tensor  # (N,), int64
    valid: Tensor  # (N,), bool


class DenseDetector(DetectorGraph):
    """(1, C, H, W) → boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,), labels (N,)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        head = model.bbox_head
        self.decode = _decoder_of(head)
        if self.decode is None:
            raise UserError(f'{type(model).__name__} with a {type(head).__name__} cannot be exported: that head '
                            'has its own way from maps to boxes; the backbone alone can, by --backbone')
        refuse_other_nms(model, head.test_cfg)
        if isinstance(model.neck, (CSPNeXtPAFPN, YOLOXPAFPN)):  # cannot add maps of odd sides to larger ones
            self.normalise.divisor = max(self.normalise.divisor, MULTIPLE)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head, config = self.model.bbox_head, self.model.bbox_head.test_cfg
        maps = head(self.model.extract_feat(self.normalise(image)))
        most = None if isinstance(head, YOLOXHead) else config.max_per_img
        return best(self.decode(head, maps, config, image.shape[2:]), config.nms, most)

    def reference(self, model: nn.Module, pictures: list[Tensor]) -> list[Tensor]:
        model.data_preprocessor.pad_size_divisor = self.normalise.divisor
        return super().reference(model, pictures)

    def set_threshold(self, model: nn.Module, threshold: float) -> None:
        model.bbox_head.test_cfg.score_thr = threshold


def best(found: Candidates, method: ConfigDict, most: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The valid boxes after NMS, their scores and labels, best first, ``most`` of them or all."""
    chosen = found.valid.nonzero()[:, 0]
    boxes, scores, labels = found.boxes[chosen], found.scores[chosen], found.labels[chosen]
    kept = suppress(boxes, scores, labels, method)[:most]
    return boxes[kept], scores[kept], labels[kept]


def _decoder_of(head: nn.Module) -> Callable[..., Candidates] | None:
    """What finds the candidates of a head, by the class whose methods the head has; None if nothing does."""
    for kind, decode in ((BaseDenseHead, _of_levels), (GFLHead, _of_levels), (YOLOXHead, _of_yolox)):
        if all(getattr(type(head), method, None) is getattr(kind, method, None) for method in _METHODS):
            return decode
    return None


def _of_levels(head: nn.Module, maps: tuple[list[Tensor], ...], config: ConfigDict, size: torch.Size) -> Candidates:
    """What mmdet's ``BaseDenseHead`` takes from each level: its ``nms_pre`` best pairs of a box and a class."""
    all_logits, all_boxes, *factors = maps
    priors_of = head.prior_generator.grid_priors(
        [logits.shape[-2:] for logits in all_logits], dtype=all_logits[0].dtype, device=all_logits[0].device)
    integral = isinstance(head, GFLHead)  # predicts distributions of distances in strides
    levels = []
    for level, (logits, boxes, priors) in enumerate(zip(all_logits, all_boxes, priors_of)):
        scores = flatten(logits, head.cls_out_channels)
        scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)[:, :-1]
        classes = scores.shape[1]
        scores, order = scores.flatten().topk(_at_most(config.get('nms_pre', -1), scores.numel()))
        place, label = order // classes, order % classes
        if integral:
            boxes = head.integral(boxes[0].permute(1, 2, 0)) * head.prior_generator.strides[level][0]
            boxes, priors = boxes[place], head.anchor_center(priors[place])
        else:
            boxes, priors = flatten(boxes, head.bbox_coder.encode_size)[place], priors[place]
        boxes = head.bbox_coder.decode(priors, boxes)
        boxes = clip(boxes, size) if getattr(head.bbox_coder, 'clip_border', False) else boxes
        valid = scores > config.get('score_thr', 0)
        if factors and factors[0] is not None:
            scores = scores * flatten(factors[0][level], 1)[:, 0].sigmoid()[place]
        levels.append(Candidates(boxes, scores, label, valid))
    found = Candidates(*(torch.cat(part) for part in zip(*levels)))
    smallest = config.get('min_bbox_size', -1)
    if smallest >= 0:
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        found = found._replace(valid=found.valid & (sides > smallest).all(1))
    return found


def _of_yolox(head: nn.Module, maps: tuple[list[Tensor], ...], config: ConfigDict, size: torch.Size) -> Candidates:
    """What mmdet's ``YOLOXHead`` takes: the best class of each point, its score times the objectness."""
    all_logits, all_boxes, all_objectness = maps
    priors = torch.cat(head.prior_generator.grid_priors(
        [logits.shape[-2:] for logits in all_logits], dtype=all_logits[0].dtype, device=all_logits[0].device,
        with_stride=True))
    scores, labels = torch.cat([flatten(level, head.cls_out_channels) for level in all_logits]).sigmoid().max(1)
    scores = scores * torch.cat([flatten(level, 1) for level in all_objectness])[:, 0].sigmoid()
    boxes = head._bbox_decode(priors, torch.cat([flatten(level, 4) for level in all_boxes]))
    return Candidates(boxes, scores, labels, scores >= config.score_thr)


def _at_most(most: int, number: int) -> int:
    """The smaller of a setting, where -1 is any number, and a number that a graph keeps as a symbol."""
    return number if most < 0 else torch.sym_min(most, number)
