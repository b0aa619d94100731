"""Mask2Former and MaskFormer as one graph: instances, panoptic segments, or both.

mmdet's fusion of masks loops over the segments of an image; this module computes the same for all at once.
"""
from types import SimpleNamespace

import torch
from mmdet.models.dense_heads import MaskFormerHead
from mmdet.models.seg_heads import MaskFormerFusionHead
from torch import Tensor, nn

from dwnet.errors import UserError

from .deformable import replace_deformable
from .detector_graph import DetectorGraph

STEP = 1000  # between the numbers of things: mmdet's INSTANCE_OFFSET


class MaskDetector(DetectorGraph):
    """(1, C, H, W) → the outputs that the config's ``test_cfg`` turns on.

    Instances are boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,), labels (N,) and image_masks (N, H, W), the
    probability of the object at each pixel. Panoptic segments are panoptic (H, W): class + 1000 · number of the thing,
    and the class after the last is none.
    """

    def __init__(self, model: nn.Module) -> None:
        head, fusion = model.panoptic_head, model.panoptic_fusion_head
        if type(fusion) is not MaskFormerFusionHead or type(head).predict is not MaskFormerHead.predict:
            raise UserError(f'{type(model).__name__} with a {type(head).__name__} and a {type(fusion).__name__} cannot '
                            'be exported; the backbone alone can, by --backbone')
        instances, panoptic = fusion.test_cfg.get('instance_on', False), fusion.test_cfg.get('panoptic_on', True)
        super().__init__(model, ['boxes', 'scores', 'labels', 'image_masks'] if instances else [])
        if instances:
            self.axes['image_masks'] |= {1: 'height', 2: 'width'}
        if panoptic:
            self.axes['panoptic'] = {0: 'height', 1: 'width'}
        replace_deformable(model)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        logits, masks = self._predict(self.model, self.normalise(image), image.shape[2:])
        return (self._instances(logits, masks) if 'boxes' in self.axes else ()) + (
            (self._panoptic(logits, masks), ) if 'panoptic' in self.axes else ())

    @staticmethod
    def _predict(model: nn.Module, image: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Logits of the classes of each query, (Q, classes + 1), and of its mask, (Q, H, W)."""
        sample = SimpleNamespace(metainfo=dict(batch_input_shape=image.shape[2:], img_shape=size))
        logits, masks = model.panoptic_head.predict(model.extract_feat(image), [sample])
        return logits[0], masks[0, :, :size[0], :size[1]]

    def _instances(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores, labels and masks, best first. Equal scores are in the order of the classes' scores."""
        fusion = self.model.panoptic_fusion_head
        scores, order = logits.softmax(-1)[:, :-1].flatten().topk(fusion.test_cfg.get('max_per_image', 100))
        labels, query = order % fusion.num_classes, order // fusion.num_classes
        if fusion.num_stuff_classes:
            things = (labels < fusion.num_things_classes).nonzero()[:, 0]
            scores, labels, query = scores[things], labels[things], query[things]
        inside = masks > 0
        weights = (masks.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)  # of each query
        scores, order = (scores * weights[query]).sort(descending=True)
        labels, query = labels[order], query[order]
        return _boxes_around(inside)[query], scores, labels, masks[query].sigmoid()

    def _panoptic(self, logits: Tensor, masks: Tensor) -> Tensor:
        fusion = self.model.panoptic_fusion_head
        config, nothing = fusion.test_cfg, fusion.num_classes
        scores, labels = logits.softmax(-1).max(-1)
        masks = masks.sigmoid()
        kept = (labels != nothing) & (scores > config.get('object_mask_thr', .8))
        # a query that is not kept wins no pixel of one that is
        winner = torch.where(kept, scores, -1)[:, None, None].mul(masks).argmax(0)  # (H, W)
        area = (winner == torch.arange(len(masks), device=masks.device)[:, None, None]).flatten(1).sum(1)
        whole = (masks >= .5).flatten(1).sum(1)
        # in float64, as Python divides
        kept = kept & (area > 0) & (whole > 0) & (area.double() / whole.clamp(min=1) >= config.get('iou_thr', .8))
        thing = labels < fusion.num_things_classes
        segments = labels + STEP * torch.where(thing, (kept & thing).long().cumsum(0), 0)
        shown = kept[winner]
        if config.get('filter_low_score', False):
            shown = shown & (masks.gather(0, winner[None])[0] >= .5)
        return torch.where(shown, segments[winner], nothing)

    def reference(self, model: nn.Module, pictures: list[Tensor]) -> list[Tensor]:
        """mmdet's predictions for one picture (C, H, W), colours BGR, instances in the order of the graph's."""
        image = model.data_preprocessor(dict(inputs=pictures), False)['inputs']
        logits, masks = self._predict(model, image, pictures[0].shape[1:])
        fusion = model.panoptic_fusion_head
        outputs = []
        if 'boxes' in self.axes:
            found = fusion.instance_postprocess(logits, masks)
            # what mmdet chose, of which it returns no probabilities
            scores, order = logits.softmax(-1)[:, :-1].flatten().topk(
                fusion.test_cfg.get('max_per_image', 100), sorted=False)
            things = order % fusion.num_classes < fusion.num_things_classes
            scores, query = scores[things], order[things] // fusion.num_classes
            order = scores.sort(descending=True, stable=True)[1]
            order = order[found.scores[order].sort(descending=True, stable=True)[1]]
            outputs += [found.bboxes[order], found.scores[order], found.labels[order], masks[query[order]].sigmoid()]
        if 'panoptic' in self.axes:
            outputs.append(fusion.panoptic_postprocess(logits, masks).sem_seg[0].long())
        return outputs

    def find_more(self, model: nn.Module, photographs: list[Tensor]) -> None:
        """There is no threshold of instances: the best queries are the output."""


def _boxes_around(inside: Tensor) -> Tensor:
    """The boxes around masks (Q, H, W), which are 0 around nothing: (Q, 4)."""
    ends = []
    for axis in (1, 2):  # columns, then rows
        hit = inside.any(axis)
        place = torch.arange(hit.shape[1], device=hit.device)
        last = torch.where(hit, place + 1, 0).amax(1)
        ends.append((torch.where(hit, place, hit.shape[1]).amin(1).minimum(last), last))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1).float()
