"""Samples of a map along boxes and curves: R3Det's feature refinement, BorderDet's border align, ABCNet's Bézier align.

As in mmcv's ``rotated_feature_align.cpp``, ``border_align_cuda_kernel.cuh`` and ``bezier_align.cpp``. Samples are
bilinear; points up to one pixel outside a map get the value of its border, points beyond get 0. All three are linear in
the map, so their gradients do not depend on its values.
"""
import torch
from torch import Tensor

from .deform import gradients_of
from .precision import wide
from .rois import bilinear, each_sample, finite_only, pixels_around

OUTSIDE = -2.  # pixels, replaces NaN: outside every map


def rotated_feature_align_forward(features: Tensor, best_bboxes: Tensor, output: Tensor, spatial_scale: float,
                                  points: int) -> None:
    """Writes ``features``, (B, C, H, W), plus the samples at each pixel's box, into ``output`` (arXiv:1908.05612).

    ``best_bboxes`` is (B, H, W, 5), or flat, as mmrotate has it, (B * H * W, 5). mmcv reads centre y, centre x, width,
    height and angle in radians.
    ``points`` is 1 for the centre of the box, 5 for the centre and the corners.
    """
    output.copy_(_refine(wide(features), wide(best_bboxes), spatial_scale, points))


def rotated_feature_align_backward(top_grad: Tensor, best_bboxes: Tensor, bottom_grad: Tensor, spatial_scale: float,
                                   points: int) -> None:
    """Writes the gradient of :func:`rotated_feature_align_forward` into ``bottom_grad``, (B, C, H, W)."""
    boxes = wide(best_bboxes)
    bottom_grad.copy_(gradients_of(lambda features: _refine(features, boxes, spatial_scale, points), (bottom_grad, ),
                                   top_grad)[0])


def _refine(features: Tensor, boxes: Tensor, scale: float, points: int) -> Tensor:
    boxes = boxes.reshape(len(features), *features.shape[2:], 5)
    y, x, width, height = (boxes[..., :4] * scale).unbind(-1)
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    refined = features
    for along, across in ((0, 0), (.5, .5), (-.5, .5), (-.5, -.5), (.5, -.5))[:points]:
        row = y + along * sin * width + across * cos * height
        column = x + along * cos * width - across * sin * height
        # all channels have the same points
        refined = refined + _sample_each(features, row.flatten(1)[:, None], column.flatten(1)[:, None]).view_as(refined)
    return refined


def border_align_forward(input: Tensor, boxes: Tensor, output: Tensor, argmax_idx: Tensor, pool_size: int) -> None:
    """Writes the maximum of samples along each side of each box into ``output`` (arXiv:2007.11056).

    Args:
        input: (B, 4 * C, H, W), C channels for each of the top, left, bottom and right sides.
        boxes: (B, N, 4) as x1, y1, x2, y2 on the map.
        output: (B, C, N, 4).
        argmax_idx: (B, C, N, 4); the number of the largest sample is written.
        pool_size: Number of steps along a side; there is one sample more.
    """
    maps, boxes = _maps_of_sides(wide(input)), wide(boxes)
    best = _sample_each(maps, *_points_of_sides(boxes, 0, pool_size))  # (B, C, 4, N)
    place = torch.zeros_like(best, dtype=argmax_idx.dtype)
    for step in range(1, pool_size + 1):
        value = _sample_each(maps, *_points_of_sides(boxes, step, pool_size))
        place[value > best] = step
        best = torch.where(value > best, value, best)
    output.copy_(best.transpose(2, 3)), argmax_idx.copy_(place.transpose(2, 3))


def border_align_backward(grad_output: Tensor, boxes: Tensor, argmax_idx: Tensor, grad_input: Tensor,
                          pool_size: int) -> None:
    """Writes the gradient of :func:`border_align_forward` into ``grad_input``, (B, 4 * C, H, W)."""
    y, x = _points_of_sides(wide(boxes), argmax_idx.transpose(2, 3), pool_size)
    grad_input.copy_(gradients_of(lambda input: _sample_each(_maps_of_sides(input), y, x), (grad_input, ),
                                  grad_output.transpose(2, 3))[0])


def _maps_of_sides(input: Tensor) -> Tensor:
    """(B, 4 * C, H, W) as (B, C, 4, H, W)."""
    return input.unflatten(1, (4, -1)).transpose(1, 2)


def _points_of_sides(boxes: Tensor, step: int | Tensor, pool_size: int) -> tuple[Tensor, Tensor]:
    """y and x of the points on the four sides of the boxes, (B, 1, 4, N), or (B, C, 4, N) if ``step`` is.

    The top and the left side run from x1, y1; the bottom and the right side back from x2, y2.
    """
    x1, y1, x2, y2 = boxes[:, None].unbind(-1)  # (B, 1, N)
    width, height = (x2 - x1) / pool_size, (y2 - y1) / pool_size
    none = torch.zeros_like(width)
    start = torch.stack([y1, y1, y2, y2], 2), torch.stack([x1, x1, x2, x2], 2)
    stride = torch.stack([none, height, none, -height], 2), torch.stack([width, none, -width, none], 2)
    return start[0] + step * stride[0], start[1] + step * stride[1]


def _sample_each(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Samples of each map, (..., H, W), at its own points y, x, (..., N); the dimensions before are broadcast."""
    pixels = maps.flatten(-2)
    y, x = y.where(~y.isnan(), OUTSIDE), x.where(~x.isnan(), OUTSIDE)
    return sum(pixels.take_along_dim(row * maps.shape[-1] + column, -1) * weight
               for row, column, weight in pixels_around(y, x, *maps.shape[-2:]))


def bezier_align_forward(input: Tensor, rois: Tensor, output: Tensor, aligned_height: int, aligned_width: int,
                         spatial_scale: float, sampling_ratio: int, aligned: bool) -> None:
    """Writes the mean of samples of each cell between two Bézier curves into ``output`` (arXiv:2002.10200).

    Args:
        input: (B, C, H, W).
        rois: (N, 17), index in the batch, then x, y of the upper curve's four points from left to right, then of the
            lower curve's from right to left. NaN and infinity give NaN.
        output: (N, C, aligned_height, aligned_width).
        aligned_height: Cells from the upper curve to the lower.
        aligned_width: Cells along the curves.
        spatial_scale: Size of the map over the size of the image.
        sampling_ratio: Samples of a cell along each axis; 0 for one a pixel.
        aligned: Whether the centre of a pixel is half a pixel from its corner.
    """
    finite, lost = finite_only(wide(rois))
    output.copy_(_pool(wide(input), finite, aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned))
    output.masked_fill_(lost, torch.nan)


def bezier_align_backward(grad_output: Tensor, rois: Tensor, grad_input: Tensor, aligned_height: int,
                          aligned_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool) -> None:
    """Writes the gradient of :func:`bezier_align_forward` into ``grad_input``, (B, C, H, W)."""
    finite, lost = finite_only(wide(rois))
    if len(rois):
        grad_input.copy_(gradients_of(
            lambda input: _pool(input, finite, aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned),
            (grad_input, ), grad_output.masked_fill(lost, 0))[0])
    else:
        grad_input.zero_()


def _pool(input: Tensor, rois: Tensor, height: int, width: int, scale: float, ratio: int, aligned: bool) -> Tensor:
    curves = rois[:, 1:].view(-1, 2, 4, 2).flip(-1) * scale  # (N, curves, points, 2) as y, x
    upper, lower = curves[:, 0], curves[:, 1].flip(1)
    size = torch.maximum((upper[:, 0] - upper[:, 3]).abs(), (lower[:, 0] - lower[:, 3]).abs())
    cell = (size if aligned else size.clamp(min=1)) / size.new_tensor([height, width])
    u, v = (torch.arange(n, dtype=rois.dtype, device=rois.device) / n for n in (width, height))
    weights = torch.stack([(1 - u)**3, 3 * u * (1 - u)**2, 3 * u**2 * (1 - u), u**3])  # (points, w)
    above, below = ((weights[..., None] * curve[:, :, None]).sum(1).transpose(1, 2)[:, :, None]
                    for curve in (upper, lower))  # (N, 2, 1, w)
    centre = below * v[:, None] + above * (1 - v[:, None]) - (.5 if aligned else 0)  # (N, 2, h, w)
    total = input.new_zeros(len(rois), input.shape[1], height, width)
    for y, x, used, count in each_sample(centre - .5 * cell[..., None, None], cell, ratio):
        total = total + bilinear(input, rois[:, 0], y, x)[0].where(used, 0) / count
    return total
