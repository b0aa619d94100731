"""Cases of mmcv's operators for rotated boxes, as in ``mmcv_cases.py``.

Edges of different boxes coincide only in upright boxes of whole numbers. At other angles, rounding makes compiled mmcv
miss corners of such intersections, so ``test_mmcv_rotated.py`` compares those with geometry.
"""
from collections.abc import Callable

import torch
from mmcv import ops
from mmcv_cases import Case, _random, _with_gradients
from torch import Tensor


def rotated_boxes(seed: int) -> Tensor:
    """(N, 5): none, one, equal, upright with common edges, zero-area, inverted, beyond ±π, far away, thin, random."""
    generator, choose = _random(seed)
    number = {0: 0, 1: 1, 2: 2}.get(seed, choose(3, 20, 60))
    boxes = torch.rand(number, 5, generator=generator) * torch.tensor([1, 1, .4, .4, 0]) * choose(10, 100, 500)
    boxes[:, 2:4] += 1
    boxes[:, 4] = (torch.rand(number, generator=generator) * 2 - 1) * choose(1.6, 3.2, 30)
    if seed == 2:
        boxes[1] = boxes[0]
    if seed in (3, 4) or seed % 7 == 6:
        boxes.round_()
        boxes[:, 4] = 0
    if seed == 5:
        boxes[::2, 2] = 0
    if seed == 7:
        boxes[::2, 2:4] *= -1
        boxes[::3, 2] *= -1
    if seed == 8:
        boxes[:, :2] += 4000
    if seed % 5 == 4:
        boxes[:, 2] *= 4
    return boxes


def quadrilaterals(seed: int) -> Tensor:
    """(N, 8): the corners of rotated boxes, from any corner on, in both directions."""
    generator, choose = _random(seed)
    x, y, width, height, angle = rotated_boxes(seed).double().unbind(1)
    along = torch.stack([angle.cos(), angle.sin()], 1) * width[:, None] / 2
    across = torch.stack([-angle.sin(), angle.cos()], 1) * height[:, None] / 2
    corners = torch.stack([along + across, across - along, -along - across, along - across], 1)
    corners = (corners + torch.stack([x, y], 1)[:, None]).roll(choose(0, 1, 2, 3), 1)
    return (corners.flip(1) if choose(True, False) else corners).flatten(1).float()


def _overlaps(function: Callable, first: Tensor, second: Tensor, seed: int, **options) -> list[Tensor]:
    """Intersection over union and over the first area, of all and, in every third case, of pairs."""
    if seed % 3 == 0:
        first, second = first[:len(second)], second[:len(first)]
    return [function(first, second, mode, aligned, **options) for mode in ('iou', 'iof')
            for aligned in ([False, True] if seed % 3 == 0 else [False])]


def box_iou_rotated(seed: int) -> list[Tensor]:
    first = rotated_boxes(seed)[:30]
    second = first[:20] if seed % 4 == 2 else rotated_boxes(seed + 1000)[:20]
    return _overlaps(ops.box_iou_rotated, first, second, seed, clockwise=seed % 2 == 0)


def box_iou_quadri(seed: int) -> list[Tensor]:
    return _overlaps(ops.box_iou_quadri, quadrilaterals(seed)[:30], quadrilaterals(seed + 1000)[:20], seed)


def _scores(boxes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Scores, with ties in every fourth case, and labels."""
    generator, _ = _random(seed)
    scores = torch.rand(len(boxes), generator=generator)
    return (scores * 8).round() / 8 if seed % 4 == 3 else scores, torch.arange(len(boxes)) % 3


def nms_rotated(seed: int) -> list[Tensor]:
    _, choose = _random(seed)
    boxes = rotated_boxes(max(seed, 1))  # of none, mmcv returns no indices
    scores, labels = _scores(boxes, seed)
    return list(ops.nms_rotated(boxes, scores, choose(.1, .3, .6), choose(None, labels), choose(True, False)))


def nms_quadri(seed: int) -> list[Tensor]:
    _, choose = _random(seed)
    boxes = quadrilaterals(max(seed, 1))
    scores, labels = _scores(boxes, seed)
    return list(ops.nms_quadri(boxes, scores, choose(.1, .3, .6), choose(None, labels)))


def rotated_rois(seed: int, size: tuple[int, int, int]) -> Tensor:
    """(N, 6) on (batch, height, width): none, one, of zero area, beyond the map, larger than it, upright, random."""
    generator, choose = _random(seed)
    batch, height, width = size
    number = {0: 0, 1: 1}.get(seed, choose(2, 5, 9))
    boxes = torch.rand(number, 5, generator=generator) * torch.tensor([width, height, width, height, 0])
    boxes[:, 4] = (torch.rand(number, generator=generator) * 2 - 1) * choose(1.6, 3.2, 30)
    if seed == 2:
        boxes[:, 2:4] = 0
    if seed == 3:
        boxes[:, 2] = 0
    if seed == 4:
        boxes[:, 0] += 2 * width
    if seed == 5:
        boxes[:, 2:4] *= 4
    if seed in (6, 7):
        boxes.round_()
        boxes[:, 4] = 0
    return torch.cat([torch.randint(batch, (number, 1), generator=generator).float(), boxes], 1)


def roi_align_rotated(seed: int) -> list[Tensor]:
    generator, choose = _random(seed)
    height, width, scale = choose(5, 8, 11), choose(4, 9), choose(1., .5, .25)
    align = ops.RoIAlignRotated(choose(1, 3, (2, 3)), scale, choose(0, 0, 1, 2), choose(True, False),
                                choose(True, False))
    regions = rotated_rois(seed, (2, int(height / scale), int(width / scale)))
    x = torch.randn(2, 3, height, width, generator=generator)
    return _with_gradients(lambda x: align(x, regions), [x], generator)


# Those that compiled mmcv has on the CPU
CASES: dict[str, Case] = {function.__name__: function for function in (
    box_iou_rotated, box_iou_quadri, nms_rotated, nms_quadri, roi_align_rotated)}
