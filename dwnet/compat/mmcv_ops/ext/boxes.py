"""Non-maximum suppression and overlaps of boxes, as in mmcv's ``csrc/pytorch/cpu/nms.cpp``.

Boxes are (N, 4) as x1, y1, x2, y2; ``offset`` is 1 if x2 and y2 lie inside the box (width = x2 - x1 + 1), else 0.
"""
from collections.abc import Callable, Iterator
from ctypes import c_float

import numpy as np
import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import wide


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the kept boxes, best score first; see ``torchvision.ops.nms``.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: A box that overlaps a better box by more is dropped.
        offset: See above.
    """
    ranked, order = scores.sort(0, descending=True)  # mmcv's call, which sets the order of ties
    boxes = wide(boxes)
    if offset:
        # torchvision has no offset, and adding 1 to x2 and y2 would round differently
        groups = _groups(boxes.cpu(), order.cpu(), lambda overlap: overlap > iou_threshold, offset)
        return torch.tensor([int(best) for best, _ in groups], dtype=torch.long, device=order.device)
    # torchvision's sort keeps this order; mmcv's threshold is a float32, and boxes whose overlap equals it are kept
    return order[torch.ops.torchvision.nms(boxes[order], ranked.to(boxes.dtype), c_float(iou_threshold).value)]


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of indices, by falling score: a kept box, then the boxes that it drops.

    Args:
        dets: (N, 5), boxes and scores.
        iou_threshold: A box that overlaps a better box by this much or more is dropped.
    """
    order = dets[:, 4].contiguous().sort(0, descending=True)[1]
    groups = _groups(wide(dets[:, :4]), order, lambda overlap: overlap >= iou_threshold, offset=0)
    return [[int(best), *dropped.tolist()] for best, dropped in groups]


def _groups(boxes: Tensor, order: Tensor, drops: Callable[[Tensor], Tensor],
            offset: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each kept box with the boxes that it drops."""
    while len(order):
        best, rest = order[0], order[1:]
        dropped = drops(_overlap(boxes[best], boxes[rest], offset))
        yield best, rest[dropped]
        order = rest[~dropped]


def _overlap(box: Tensor, others: Tensor, offset: int) -> Tensor:
    """Intersection over union in mmcv's order of operations, so that a threshold drops the same boxes."""
    width, height = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])
                     + offset).clamp(min=0).unbind(1)
    intersection = width * height
    return intersection / (_area(box, offset) + _area(others, offset) - intersection)


def _area(boxes: Tensor, offset: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1 + offset) * (y2 - y1 + offset)


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Lowers the scores of boxes that overlap better ones; returns the indices of the kept boxes, best first.

    Each step depends on the step before, so a loop is needed; NumPy has the cheapest calls for a loop.

    Args:
        boxes: (N, 4) on the CPU.
        scores: (N,).
        dets: (N, 5); boxes and lowered scores are written into its first rows.
        iou_threshold: Overlap from which scores are lowered; unused by ``method`` 2.
        sigma: Width of the Gaussian of ``method`` 2.
        min_score: Boxes whose score falls below are dropped.
        method: 0 drops overlapping boxes, 1 lowers scores linearly, 2 by a Gaussian.
        offset: See above.
    """
    corners, left = wide(boxes.detach()).numpy(), wide(scores.detach()).numpy().copy()
    x1, y1, x2, y2 = corners.T
    order = np.arange(len(corners))  # swapped as mmcv does: the order breaks ties
    step = 0
    with np.errstate(all='ignore'):
        areas = (x2 - x1 + offset) * (y2 - y1 + offset)
        while step < len(order):
            best = step + _place_of_best(left[order[step:]])
            order[[step, best]] = order[[best, step]]
            best, rest = order[step], order[step + 1:]
            width = np.maximum(np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + offset, 0)
            height = np.maximum(np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + offset, 0)
            overlap = width * height / (areas[best] + areas[rest] - width * height)
            if method == 2:
                # round once, as C does: rounding in NumPy's float32 would break ties that exist in C
                left[rest] *= np.exp(-(overlap * overlap) / np.float32(sigma), dtype=np.float64).astype(left.dtype)
            else:
                left[rest] *= np.where(overlap >= iou_threshold, 1 - overlap if method == 1 else 0, 1)
            step += 1
            order = np.concatenate([order[:step], _close_gaps(rest, ~(left[rest] < min_score))])
    kept = torch.from_numpy(order)
    dets[:len(kept), :4] = boxes[kept]
    dets[:len(kept), 4] = torch.from_numpy(left)[kept]
    return kept


def _place_of_best(scores: np.ndarray) -> int:
    """Place of the first best score. NaN, the score of zero-area boxes, wins only in the first place."""
    best = int(scores.argmax())
    return int(np.nanargmax(scores)) if np.isnan(scores[best]) and not np.isnan(scores[0]) else best


def _close_gaps(items: np.ndarray, stays: np.ndarray) -> np.ndarray:
    """Removes the items that do not stay; the last items fill the gaps, front to back."""
    number = int(stays.sum())
    closed = items[:number].copy()
    closed[~stays[:number]] = items[number:][stays[number:]][::-1]
    return closed


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Writes the overlaps into ``ious``, (N, M), or (N,) of pairs if ``aligned``.

    ``mode`` 0 is intersection over union; 1, intersection over the area of ``bboxes1``.
    """
    first, second = wide(bboxes1), wide(bboxes2)
    if not aligned:
        first = first[:, None]
    width, height = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
                     + offset).clamp(min=0).unbind(-1)
    intersection, area = width * height, _area(first, offset)
    ious.copy_(intersection / (area + _area(second, offset) - intersection if mode == 0 else area))
