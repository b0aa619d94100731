"""Overlaps and non-maximum suppression of rotated boxes and quadrilaterals, as in ``nms_rotated.cpp`` of mmcv.

Rotated boxes are (N, 5) as centre x, centre y, width, height and angle in radians. The angle turns the width from the
x-axis towards the y-axis. Quadrilaterals are (N, 8), four corners as x, y.

mmcv collects the corners of an intersection and wraps a hull around them, pair after pair. Where edges coincide,
rounding makes mmcv miss corners. Here Green's theorem gives the area without the corners, for all pairs at once. In the
frame of the first box, which is ``|x| <= a, |y| <= b``, the shared area is the integral of ``clamp(y, -b, b) dx`` along
the outline of the second box, where ``|x| <= a``. The integral is continuous in both boxes, so coincident edges need no
special care.
"""
from collections.abc import Callable, Iterator
from ctypes import c_float
from dataclasses import dataclass

import torch
from torch import Tensor

from .polygons import area_of, outline, shared_area
from .precision import wide

SMALLEST = 1e-14  # square pixels, mmcv's: a smaller box overlaps nothing
BLOCK = 512  # boxes that NMS decides on at once
PAIRS = 2 ** 17  # pairs whose overlaps are computed at once, a bound on memory


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Writes the overlaps of ``boxes1``, (N, 5), with ``boxes2``, (M, 5), into ``ious``.

    Args:
        boxes1: See above.
        boxes2: See above.
        ious: (N * M,), or (N,) of pairs if ``aligned``.
        mode_flag: 0 is intersection over union; 1, intersection over the area of ``boxes1``.
        aligned: Whether ``boxes1`` and ``boxes2`` are pairs.
    """
    _write_overlaps(_rotated(boxes1), _rotated(boxes2), ious, mode_flag, aligned)


def box_iou_quadri(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Writes the overlaps of quadrilaterals; see :func:`box_iou_rotated`.

    mmcv finds the corners inside a quadrilateral by projection, as if it were a rectangle. Here the area is exact.
    """
    _write_overlaps(_quadrilaterals(boxes1), _quadrilaterals(boxes2), ious, mode_flag, aligned)


def nms_rotated(dets: Tensor, scores: Tensor, order: Tensor, dets_sorted: Tensor, labels: Tensor,
                iou_threshold: float, multi_label: int) -> Tensor:
    """Indices of the kept boxes, best score first.

    Args:
        dets: (N, 5), or (N, 6) with the labels.
        scores: (N,).
        order: (N,), the indices by falling score.
        dets_sorted: ``dets`` in this order.
        labels: Unused; as in compiled mmcv, boxes suppress boxes of other labels, too.
        iou_threshold: A box that overlaps a better box by this much or more is dropped.
        multi_label: Whether ``dets`` hold labels.
    """
    return order[_suppress(_rotated(dets_sorted[:, :5]), iou_threshold)]


def nms_quadri(dets: Tensor, scores: Tensor, order: Tensor, dets_sorted: Tensor, iou_threshold: float,
               multi_label: int) -> Tensor:
    """Indices of the kept quadrilaterals, best score first; see :func:`nms_rotated`."""
    return order[_suppress(_quadrilaterals(dets_sorted[:, :8]), iou_threshold)]


@dataclass
class Boxes:
    """N boxes with what their overlaps need.

    Attributes:
        area: (N,).
        extent: (4, N), the smallest upright boxes around them, as x1, y1, x2, y2.
        rows: (rows, N), what ``shared`` needs of each box.
        shared: Returns the area, (P,), that the boxes of P pairs share, of their ``rows``.
    """

    area: Tensor
    extent: Tensor
    rows: Tensor
    shared: Callable[[Tensor, Tensor], Tensor]


def _rotated(boxes: Tensor) -> Boxes:
    """Of boxes (N, 5)."""
    x, y, width, height, angle = wide(boxes).unbind(1)
    a, b, cos, sin = width / 2, height / 2, angle.cos(), angle.sin()
    reach_x, reach_y = (a * cos).abs() + (b * sin).abs(), (a * sin).abs() + (b * cos).abs()
    return Boxes(width * height, torch.stack([x - reach_x, y - reach_y, x + reach_x, y + reach_y]),
                 torch.stack([x, y, a.abs(), b.abs(), cos, sin]), _shared_by_rotated)


def _quadrilaterals(boxes: Tensor) -> Boxes:
    """Of corners (N, 8)."""
    boxes = wide(boxes)
    corners = boxes.unflatten(1, (4, 2))
    area = area_of(outline(corners.double())).to(boxes.dtype)
    return Boxes(area, torch.cat([corners.amin(1), corners.amax(1)], 1).t(), boxes.t(), _shared_by_quadrilaterals)


def _shared_by_quadrilaterals(first: Tensor, second: Tensor) -> Tensor:
    corners, others = (t.t().unflatten(1, (4, 2)).double() for t in (first, second))
    return shared_area(outline(corners), outline(others)).to(first.dtype)


def _shared_by_rotated(first: Tensor, second: Tensor) -> Tensor:
    (x, y, a, b, cos, sin), (x_, y_, a_, b_, cos_, sin_) = first, second
    # centre of the other box in the frame of the first one, and cosine and sine of the angle between them
    x, y = x_ - x, y_ - y
    x, y = x * cos + y * sin, y * cos - x * sin
    cos, sin = cos * cos_ + sin * sin_, cos * sin_ - sin * cos_
    along, across = torch.stack([a_ * cos, a_ * sin]), torch.stack([b_ * sin, -b_ * cos])
    corners = torch.stack([along + across, across - along, -along - across, along - across], 1)  # (2, 4, P)
    return _area_within(corners[0] + x, corners[1] + y, a, b)


def _area_within(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Area of polygons within ``|x| <= a, |y| <= b``, (P,); their corners are x and y, (corners, P)."""
    run, rise = x.roll(-1, 0) - x, y.roll(-1, 0) - y
    start, stop = x.clamp(-a, a), x.roll(-1, 0).clamp(-a, a)
    slope = rise / run.where(run != 0, 1)  # an upright edge has start == stop, and no part in the integral
    y, rise = y + slope * (start - x), slope * (stop - start)
    # where, between 0 and 1, the edge enters and leaves |y| <= b: three straight pieces of the clamped y
    step = rise.where(rise != 0, 1)
    low, high = ((-b - y) / step).clamp(0, 1), ((b - y) / step).clamp(0, 1)
    enters, leaves = torch.minimum(low, high), torch.maximum(low, high)
    mean = (y.clamp(-b, b) * enters + (y + enters * rise).clamp(-b, b) * leaves
            + (y + leaves * rise).clamp(-b, b) * (1 - enters) + (y + rise).clamp(-b, b) * (1 - leaves)) / 2
    return (mean * (stop - start)).sum(0).abs()


def _write_overlaps(first: Boxes, second: Boxes, ious: Tensor, mode: int, aligned: bool) -> None:
    """Writes intersection over union (``mode`` 0) or over the first area (1); see :func:`box_iou_rotated`."""
    ious.zero_()
    for i, j in _pairs(first.extent, second.extent, aligned):
        overlap = _overlap(first, i, second, j, mode).to(ious.dtype)
        ious[i if aligned else i * len(second.area) + j] = overlap


def _suppress(boxes: Boxes, iou_threshold: float) -> Tensor:
    """Indices of the kept boxes, of boxes by falling score.

    A block of boxes is decided by itself. Its kept boxes thin out the rest, then the next block is taken.
    """
    kept, left = [], torch.arange(len(boxes.area), device=boxes.area.device)
    while len(left):
        block, rest = left[:BLOCK], left[BLOCK:]
        kept.append(block[_keep(len(block), *_dropping(boxes, block, block, iou_threshold))])
        dropped = _dropping(boxes, kept[-1], rest, iou_threshold)[1]
        left = rest[torch.ones_like(rest, dtype=torch.bool).index_fill(0, dropped, False)]
    return torch.cat(kept) if kept else left


def _dropping(boxes: Boxes, best: Tensor, others: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor]:
    """Pairs of which the better box would drop the other one, as places in ``best`` and ``others``."""
    found = [torch.zeros(2, 0, dtype=torch.long, device=best.device)]
    for i, j in _pairs(boxes.extent[:, best], boxes.extent[:, others], aligned=False):
        i, j = (pair[best[i] < others[j]] for pair in (i, j))
        drops = _overlap(boxes, best[i], boxes, others[j], 0) >= c_float(iou_threshold).value
        found.append(torch.stack([i[drops], j[drops]]))
    better, worse = torch.cat(found, 1)
    return better, worse


def _keep(number: int, better: Tensor, worse: Tensor) -> Tensor:
    """Which of the boxes are kept, if each kept box drops the worse ones of its pairs.

    Each turn settles at least the next box, so what no longer changes is what box after box would give.
    """
    keep = torch.ones(number, dtype=torch.bool, device=better.device)
    while True:
        after = torch.ones_like(keep).index_fill(0, worse[keep[better]], False)
        if after.equal(keep):
            return keep
        keep = after


def _pairs(first: Tensor, second: Tensor, aligned: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the indices of pairs of boxes that may overlap, up to ``PAIRS`` at once."""
    if not aligned:
        first, second = first[:, :, None], second[:, None]
    meet = ((first[:2] < second[2:]) & (second[:2] < first[2:])).all(0).nonzero()
    for pairs in meet.split(PAIRS):
        yield pairs[:, 0], pairs[:, -1]


def _overlap(first: Boxes, i: Tensor, second: Boxes, j: Tensor, mode: int) -> Tensor:
    area, other = first.area[i], second.area[j]
    shared = first.shared(first.rows[:, i], second.rows[:, j])
    overlap = shared / (area + other - shared if mode == 0 else area)
    return overlap.where((area >= SMALLEST) & (other >= SMALLEST), 0)
