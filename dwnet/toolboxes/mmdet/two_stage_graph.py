"""A two-stage detector as one graph, non-maximum suppression included: Faster, Mask and Cascade R-CNN.

mmdet's functions between the heads cannot be traced: they branch on the number of boxes, and split boxes by counts that
a graph would freeze. This module computes the same for one image, in operators that ONNX has.
"""
import torch
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.task_modules import DeltaXYWHBBoxCoder
from mmdet.structures.bbox import bbox2roi
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from dwnet.errors import UserError

from .detector_graph import DetectorGraph, clip, predict


class TwoStageDetector(DetectorGraph):
    """(1, C, H, W) → boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,), labels (N,), and, if the detector has a
    mask head, masks (N, 28, 28): the probability of the object at each cell of its box.
    """
    def __init__(self, model: nn.Module) -> None:
        head = model.roi_head
        super().__init__(model, ['boxes', 'scores', 'labels'] + ['masks'] * head.with_mask)
        stages = head.bbox_head if isinstance(head.bbox_head, nn.ModuleList) else [head.bbox_head]
        coders = [model.rpn_head.bbox_coder, *(stage.bbox_coder for stage in stages)]
        methods = {model.test_cfg.rpn.nms.type, model.test_cfg.rcnn.nms.type}
        if (methods != {'nms'} or any(type(coder) is not DeltaXYWHBBoxCoder for coder in coders)
                or any(stage.custom_activation for stage in stages)
                or type(head) not in (StandardRoIHead, CascadeRoIHead)):
            raise UserError(f'{type(model).__name__} with a {type(head).__name__} cannot be exported: of the '
                            'RoI heads only StandardRoIHead and CascadeRoIHead can, with plain NMS, DeltaXYWHBBoxCoder '
                            'and softmax; the backbone alone can, by --backbone')

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        size = image.shape[2:]
        maps = self.model.extract_feat(self.normalise(image))
        boxes, scores, labels = self._classify(maps, self._propose(maps, size), size)
        return (boxes, scores, labels, *([self._masks(maps, boxes, labels)] if 'masks' in self.axes else []))

    def _propose(self, maps: tuple[Tensor, ...], size: torch.Size) -> Tensor:
        """The RPN's proposals, best first, (N, 4)."""
        head, config = self.model.rpn_head, self.model.test_cfg.rpn
        all_scores, all_deltas = head(maps)
        all_anchors = head.prior_generator.grid_priors([s.shape[-2:] for s in all_scores], device=maps[0].device)
        boxes, scores, levels = [], [], []
        for level, (score, delta, anchors) in enumerate(zip(all_scores, all_deltas, all_anchors)):
            score = score[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
            score = score.sigmoid()[:, 0] if head.use_sigmoid_cls else score.softmax(-1)[:, 0]
            # a plain slice would make a constant of the number that the recorded image has
            best = score.sort(descending=True)[1][:torch.sym_min(config.nms_pre, score.shape[0])]
            delta = delta[0].permute(1, 2, 0).reshape(-1, 4)[best]
            boxes.append(_decode(head.bbox_coder, anchors[best], delta, size))
            scores.append(score[best])
            levels.append(torch.full_like(score[best], level))
        boxes, scores, levels = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
        if config.get('min_bbox_size', -1) >= 0:
            sides = boxes[:, 2:] - boxes[:, :2]
            large = (sides > config.min_bbox_size).all(1).nonzero()[:, 0]
            boxes, scores, levels = boxes[large], scores[large], levels[large]
        return boxes[_nms_of_kinds(boxes, scores, levels, config.nms.iou_threshold, size)[:config.max_per_img]]

    def _classify(self, maps: tuple[Tensor, ...], boxes: Tensor, size: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of the last stage with the mean scores of all stages, after NMS, best first."""
        head, config = self.model.roi_head, self.model.test_cfg.rcnn
        cascade = isinstance(head.bbox_head, nn.ModuleList)
        stages = list(head.bbox_head) if cascade else [head.bbox_head]
        extractors = list(head.bbox_roi_extractor) if cascade else [head.bbox_roi_extractor]
        logits = 0
        for i, (stage, extractor) in enumerate(zip(stages, extractors)):
            stage_logits, deltas = stage(_extract(extractor, maps, boxes))
            logits = logits + stage_logits
            deltas = deltas.unflatten(1, (-1, 4))  # (N, classes or 1, 4)
            if i < len(stages) - 1:
                best = stage_logits[:, :-1].argmax(1)
                best = torch.zeros_like(best) if stage.reg_class_agnostic else best
                delta = deltas.gather(1, best[:, None, None].expand(-1, 1, 4))[:, 0]
                boxes = _decode(stage.bbox_coder, boxes, delta, size)
        scores = (logits / len(stages)).softmax(-1)[:, :-1]  # (N, classes)
        box, label = (scores > config.score_thr).nonzero().unbind(1)
        chosen = deltas[box, torch.zeros_like(label) if stages[-1].reg_class_agnostic else label]
        boxes = _decode(stages[-1].bbox_coder, boxes[box], chosen, size)
        scores = scores[box, label]
        kept = _nms_of_kinds(boxes, scores, label.to(scores.dtype), config.nms.iou_threshold, size)[:config.max_per_img]
        return boxes[kept], scores[kept], label[kept]

    def _masks(self, maps: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        head = self.model.roi_head
        cascade = isinstance(head.mask_head, nn.ModuleList)
        stages = list(head.mask_head) if cascade else [head.mask_head]
        extractors = list(head.mask_roi_extractor) if cascade else [head.mask_roi_extractor]
        masks = sum(stage(_extract(e, maps, boxes)).sigmoid() for stage, e in zip(stages, extractors)) / len(stages)
        labels = torch.zeros_like(labels) if stages[-1].class_agnostic else labels
        return masks.gather(1, labels[:, None, None, None].expand(-1, 1, *masks.shape[2:]))[:, 0]

    def reference(self, model: nn.Module, pictures: list[Tensor]) -> list[Tensor]:
        """mmdet's predictions for one picture; the masks are not pasted into the image."""
        found = predict(model, pictures).pred_instances
        outputs = [found.bboxes, found.scores, found.labels]
        if 'masks' in self.axes:
            head, rois = model.roi_head, bbox2roi([found.bboxes])
            maps = model.extract_feat(model.data_preprocessor(dict(inputs=pictures), False)['inputs'])
            stages = range(head.num_stages) if isinstance(head.mask_head, nn.ModuleList) else None
            given = ([head._mask_forward(maps, rois)] if stages is None else
                     [head._mask_forward(i, maps, rois) for i in stages])
            masks = torch.stack([stage['mask_preds'].sigmoid() for stage in given]).mean(0)
            kinds = torch.zeros_like(found.labels) if masks.shape[1] == 1 else found.labels
            outputs.append(masks[torch.arange(len(masks)), kinds])
        return outputs

    def set_threshold(self, model: nn.Module, threshold: float) -> None:
        model.test_cfg.rcnn.score_thr = model.roi_head.test_cfg.score_thr = threshold


def _decode(coder, boxes: Tensor, deltas: Tensor, size: torch.Size) -> Tensor:
    """Applies the deltas to the boxes, and clips the boxes to the image."""
    boxes = coder.decode(boxes[None], deltas[None])[0]  # for a batch mmdet does not branch on the number of boxes
    return clip(boxes, size) if coder.clip_border else boxes


def _nms_of_kinds(boxes: Tensor, scores: Tensor, kinds: Tensor, threshold: float, size: torch.Size) -> Tensor:
    """Per-class (or per-level) NMS by offsetting the boxes of each kind; returns indices, best first."""
    return nms(boxes + (kinds * (size[0] + size[1]))[:, None], scores, threshold)


def _extract(extractor: nn.Module, maps: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
    """RoI align of each box, from the level that fits the box's size: (N, C, h, w)."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)  # image 0 of the batch
    layers = extractor.roi_layers
    level = extractor.map_roi_levels(rois, len(layers))
    parts, order = [], []
    for i, (layer, features) in enumerate(zip(layers, maps)):
        chosen = (level == i).nonzero()[:, 0]
        parts.append(roi_align(features, rois[chosen], layer.output_size, layer.spatial_scale, layer.sampling_ratio,
                               layer.aligned))
        order.append(chosen)
    return torch.cat(parts)[torch.cat(order).sort()[1]]
