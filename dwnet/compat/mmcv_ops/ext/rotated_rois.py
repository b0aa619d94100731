"""Features of rotated regions, as in mmcv's ``roi_align_rotated.cpp`` and ``riroi_align_rotated`` for CUDA.

``input`` is (B, C, H, W), ``rois`` are (N, 6) as index in the batch, centre x, centre y, width, height and angle in
radians, ``output`` is (N, C, h, w). Regions with NaN or infinity give NaN, as in :mod:`.rois`.

One sample of each cell is a sparse matrix of bilinear weights, cells by pixels. The matrix times the pixels is the
forward pass; the transpose times the gradient is the backward pass.
"""
from collections.abc import Iterator
from math import pi

import torch
from torch import Tensor

from .precision import wide
from .rois import cell_samples, finite_only, pixels_around


def roi_align_rotated_forward(input: Tensor, rois: Tensor, output: Tensor, pooled_height: int, pooled_width: int,
                              spatial_scale: float, sampling_ratio: int, aligned: bool, clockwise: bool) -> None:
    """Writes the mean of bilinear samples of each cell into ``output``.

    Args:
        input: See above.
        rois: See above.
        output: See above.
        pooled_height: Rows of cells, h.
        pooled_width: Columns of cells, w.
        spatial_scale: Pixels of ``input`` for each unit of ``rois``.
        sampling_ratio: Samples of a cell along each side; 0 takes one for each pixel.
        aligned: Whether pixel centres lie at halves; if not, regions are at least one pixel wide and high.
        clockwise: Whether angles turn from the x-axis towards the y-axis, which is down in an image.

    Raises:
        RuntimeError: On the CPU, if a region has a negative size with ``aligned``, as in compiled mmcv.
    """
    x = wide(input)
    finite, lost = finite_only(rois.to(x.dtype))
    output.copy_(_align(x, finite, (pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned, clockwise))
    output.masked_fill_(lost, torch.nan)


def roi_align_rotated_backward(grad_output: Tensor, rois: Tensor, grad_input: Tensor, pooled_height: int,
                               pooled_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool,
                               clockwise: bool) -> None:
    """Writes the gradient of :func:`roi_align_rotated_forward` into ``grad_input``, (B, C, H, W)."""
    gradient = wide(grad_output)
    finite, lost = finite_only(rois.to(gradient.dtype))
    grad_input.copy_(_align_backward(gradient.masked_fill(lost, 0), finite, grad_input.shape, spatial_scale,
                                     sampling_ratio, aligned, clockwise))


def riroi_align_rotated_forward(features: Tensor, rois: Tensor, output: Tensor, pooled_height: int, pooled_width: int,
                                spatial_scale: float, num_samples: int, num_orientations: int,
                                clockwise: bool) -> None:
    """Also turns the channels, C = channels * orientations, by the angle of the region (arXiv:2103.07733).

    Between two orientations, channels are interpolated linearly. The other arguments are those of
    :func:`roi_align_rotated_forward`, without ``aligned``.
    """
    x = wide(features)
    finite, lost = finite_only(rois.to(x.dtype))
    fixed = _align(x, finite, (pooled_height, pooled_width), spatial_scale, num_samples, False, clockwise)
    turns, weight = _orientations(finite[:, 5], num_orientations)
    output.copy_(_turn(fixed, num_orientations, -turns, 1 - weight)
                 + _turn(fixed, num_orientations, 1 - turns, weight))
    output.masked_fill_(lost, torch.nan)


def riroi_align_rotated_backward(top_grad: Tensor, rois: Tensor, bottom_grad: Tensor, pooled_height: int,
                                 pooled_width: int, spatial_scale: float, num_samples: int, num_orientations: int,
                                 clockwise: bool) -> None:
    """Writes the gradient of :func:`riroi_align_rotated_forward` into ``bottom_grad``, (B, C, H, W)."""
    gradient = wide(top_grad)
    finite, lost = finite_only(rois.to(gradient.dtype))
    gradient = gradient.masked_fill(lost, 0)
    turns, weight = _orientations(finite[:, 5], num_orientations)
    fixed = (_turn(gradient, num_orientations, turns, 1 - weight)
             + _turn(gradient, num_orientations, turns - 1, weight))
    bottom_grad.copy_(_align_backward(fixed, finite, bottom_grad.shape, spatial_scale, num_samples, False, clockwise))


def _orientations(angle: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Whole orientations by which each region is turned, (N,), and the rest of the turn, (N, 1, 1, 1, 1)."""
    turns = angle * (number / (2 * pi))
    return turns.floor().long(), (turns - turns.floor())[:, None, None, None, None]


def _turn(x: Tensor, number: int, steps: Tensor, weight: Tensor) -> Tensor:
    """``x``, (N, channels * number, h, w), from ``steps`` orientations further on, (N,), times ``weight``."""
    oriented = x.unflatten(1, (-1, number))
    place = (torch.arange(number, device=x.device) + steps[:, None]) % number
    return (oriented.gather(2, place[:, None, :, None, None].expand_as(oriented)) * weight).flatten(1, 2)


def _align(x: Tensor, rois: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool,
           clockwise: bool) -> Tensor:
    """Means of samples, (N, C, h, w)."""
    pixels = x.permute(0, 2, 3, 1).flatten(0, 2)  # (B * H * W, C)
    total = x.new_zeros(len(rois) * size[0] * size[1], x.shape[1])
    for matrix in _matrices(rois, x.shape, size, scale, sampling_ratio, aligned, clockwise):
        total.addmm_(matrix, pixels)  # in place, which autocast leaves in 32 bits
    return total.view(len(rois), *size, x.shape[1]).permute(0, 3, 1, 2)


def _align_backward(gradient: Tensor, rois: Tensor, shape: torch.Size, scale: float, sampling_ratio: int,
                    aligned: bool, clockwise: bool) -> Tensor:
    """Gradient of :func:`_align` with regard to ``x``, of the shape (B, C, H, W)."""
    batch, channels, height, width = shape
    cells = gradient.permute(0, 2, 3, 1).flatten(0, 2)  # (N * h * w, C)
    total = gradient.new_zeros(batch * height * width, channels)
    for matrix in _matrices(rois, shape, gradient.shape[2:], scale, sampling_ratio, aligned, clockwise):
        total.addmm_(matrix.t(), cells)
    return total.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _matrices(rois: Tensor, shape: torch.Size, size: tuple[int, int] | torch.Size, scale: float, sampling_ratio: int,
              aligned: bool, clockwise: bool) -> Iterator[Tensor]:
    """Yields the weights of one sample of every cell, sparse (N * h * w, B * H * W)."""
    batch, _, height, width = shape
    centre, extent = rois[:, [2, 1]] * scale - (.5 if aligned else 0), rois[:, [4, 3]] * scale  # y, x
    if not aligned:
        extent = extent.clamp(min=1)
    elif rois.device.type == 'cpu' and (extent < 0).any():
        raise RuntimeError('ROIs in ROIAlignRotated do not have non-negative size!')
    angle = rois[:, 5, None, None] * (-1 if clockwise else 1)
    cos, sin, (centre_y, centre_x) = angle.cos(), angle.sin(), centre.t()[..., None, None]
    image = rois[:, 0, None, None].long() * height
    cell = torch.arange(len(rois) * size[0] * size[1], device=rois.device)
    rows, columns = size
    for down, along, used, count in cell_samples(-extent[..., None, None] / 2, extent, rows, columns, sampling_ratio):
        y, x = down * cos - along * sin + centre_y, down * sin + along * cos + centre_x
        corners = pixels_around(y, x, height, width)
        pixel = torch.stack([(image + row) * width + column for row, column, _ in corners])
        weight = (torch.stack([w for *_, w in corners]).where(used[:, 0], 0) / count[:, 0]).flatten()
        some = weight.nonzero()[:, 0]  # many regions have fewer samples than the largest one
        place = torch.stack([cell.repeat(4)[some], pixel.flatten()[some]])
        yield torch.sparse_coo_tensor(place, weight[some], (len(cell), batch * height * width), check_invariants=False)
