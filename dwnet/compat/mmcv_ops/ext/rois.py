"""Features of regions of interest, as in mmcv's ``roi_align.cpp`` and ``roi_pool``, ``deform_roi_pool`` for CUDA.

``input`` is (B, C, H, W), ``rois`` are (N, 5) as index in the batch, x1, y1, x2, y2, ``output`` is (N, C, h, w).
Regions with NaN or infinity, as a diverging detector has, give NaN; the compiled operators crash on such regions.
"""
from collections.abc import Iterator

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import wide

NO_SAMPLE = -10000.  # mmcv's maximum of a cell without samples


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float,
                      sampling_ratio: int, pool_mode: int, aligned: bool) -> None:
    """Writes the mean (``pool_mode`` 1) or the maximum (0) of bilinear samples of each cell into ``output``.

    For the maximum, the place of the sample is written into ``argmax_y`` and ``argmax_x``.

    Raises:
        RuntimeError: On the CPU, if a region has a negative size with ``aligned``, as in compiled mmcv.
    """
    x = wide(input)
    finite, lost = finite_only(rois.to(x.dtype))
    checked = aligned and x.device.type == 'cpu' and not torch.compiler.is_exporting()  # a program cannot raise
    if checked and (finite[:, 3:] < finite[:, 1:3]).any():
        raise RuntimeError('ROIs in ROIAlign cannot have negative size')
    if pool_mode == 1:
        output.copy_(torch.ops.torchvision.roi_align(x, finite, spatial_scale, aligned_height, aligned_width,
                                                     sampling_ratio, aligned))
    else:
        best = x.new_full(output.shape, NO_SAMPLE)
        argmax_y.fill_(-1), argmax_x.fill_(-1)
        start, size = _extent(finite, spatial_scale, .5 if aligned else 0)
        size = size if aligned else size.clamp(min=1)
        for y, x_, used, _ in cell_samples(start[..., None, None], size, aligned_height, aligned_width, sampling_ratio):
            value, _ = bilinear(x, finite[:, 0], y, x_)
            better = (value > best) & used
            best = torch.where(better, value, best)
            argmax_y.copy_(torch.where(better, y[:, None].to(argmax_y.dtype), argmax_y))
            argmax_x.copy_(torch.where(better, x_[:, None].to(argmax_x.dtype), argmax_x))
        output.copy_(best)
    output.masked_fill_(lost, torch.nan)


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    """Writes the gradient of :func:`roi_align_forward` into ``grad_input``, (B, C, H, W)."""
    grad_output = wide(grad_output)
    finite, _ = finite_only(rois.to(grad_output.dtype))
    if pool_mode == 1:
        grad_input.copy_(torch.ops.torchvision._roi_align_backward(
            grad_output, finite, spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio,
            aligned))
    else:
        gradient = torch.zeros_like(grad_input, dtype=grad_output.dtype)
        batch = finite[:, 0].long()[:, None, None, None]
        channel = torch.arange(grad_input.shape[1], device=grad_input.device)[:, None, None]
        y, x = wide(argmax_y), wide(argmax_x)
        for row, column, weight in pixels_around(y, x, *grad_input.shape[2:]):
            weight = weight.where(y != -1, 0)  # -1: no sample
            gradient.index_put_((batch, channel, row, column), grad_output * weight, accumulate=True)
        grad_input.copy_(gradient)


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """Writes the maximum of each cell's pixels into ``output`` (0 for an empty cell), and its place into ``argmax``.

    mmcv does not round the regions to pixels as torchvision does, so torchvision gets each cell as a region.
    """
    x = wide(input)
    finite, lost = finite_only(rois.to(x.dtype))
    rows, some_rows = _pixels(finite[:, 2], finite[:, 4], spatial_scale, pooled_height, x.shape[2])
    columns, some_columns = _pixels(finite[:, 1], finite[:, 3], spatial_scale, pooled_width, x.shape[3])
    shape = (len(finite), pooled_height, pooled_width)
    batch = finite[:, 0][:, None, None].expand(shape)
    cells = torch.stack([batch, columns[0][:, None].expand(shape), rows[0][:, :, None].expand(shape),
                         columns[1][:, None].expand(shape), rows[1][:, :, None].expand(shape)], -1)
    value, place = torch.ops.torchvision.roi_pool(x, cells.flatten(0, 2), 1., 1, 1)
    some = (some_rows[:, :, None] & some_columns[:, None])[:, None]
    # (cells, C, 1, 1) to (N, C, h, w)
    value, place = (t.view(*shape, x.shape[1]).permute(0, 3, 1, 2) for t in (value, place))
    output.copy_(torch.where(some, value, 0))
    argmax.copy_(torch.where(some, place, -1))
    output.masked_fill_(lost, torch.nan), argmax.masked_fill_(lost, -1)


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Writes the gradient of :func:`roi_pool_forward` into ``grad_input``, (B, C, H, W)."""
    grad_output = wide(grad_output)
    finite, _ = finite_only(rois.to(grad_output.dtype))
    grad_input.copy_(torch.ops.torchvision._roi_pool_backward(
        grad_output, finite, argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape))


def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, pooled_height: int,
                            pooled_width: int, spatial_scale: float, sampling_ratio: int, gamma: float) -> None:
    """Average RoI align with shifted cells.

    ``offset`` is (N, 2, h, w), the shifts in x and y in units of the region's size times ``gamma``; or empty.
    """
    x = wide(input)
    finite, lost = finite_only(rois.to(x.dtype))
    start, size = _extent(finite, spatial_scale, .5)
    total = x.new_zeros(output.shape)
    for y, x_, used, count in cell_samples(_moved(start, size, wide(offset), gamma), size, pooled_height, pooled_width,
                                       sampling_ratio):
        total += bilinear(x, finite[:, 0], y, x_)[0].where(used, 0) / count
    output.copy_(total)
    output.masked_fill_(lost, torch.nan)


def deform_roi_pool_backward(grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor, grad_input: Tensor,
                             grad_offset: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float,
                             sampling_ratio: int, gamma: float) -> None:
    """Writes the gradients of :func:`deform_roi_pool_forward` into ``grad_input`` and ``grad_offset``.

    As in mmcv, the slope at the border continues beyond the map, as if samples were not clamped.
    """
    x = wide(input)
    finite, lost = finite_only(rois.to(x.dtype))
    start, size = _extent(finite, spatial_scale, .5)
    grad_output = wide(grad_output).masked_fill(lost, 0).permute(0, 2, 3, 1)  # (N, h, w, C)
    gradient = x.new_zeros(x.shape).permute(0, 2, 3, 1)
    moved = x.new_zeros(offset.shape)
    batch = finite[:, 0].long()[:, None, None]
    for y, x_, used, count in cell_samples(_moved(start, size, wide(offset), gamma), size, pooled_height, pooled_width,
                                       sampling_ratio):
        of_sample = (grad_output / count[:, 0, :, :, None]).where(used[:, 0, :, :, None], 0)
        _, corners = bilinear(x, finite[:, 0], y, x_)
        for row, column, weight, _ in corners:
            gradient.index_put_((batch, row, column), of_sample * weight[..., None], accumulate=True)
        if len(offset):
            (top, left, inside, v00), (*_, v01), (*_, v10), (bottom, right, _, v11) = corners
            inside = (y >= -1) & (y <= x.shape[2]) & (x_ >= -1) & (x_ <= x.shape[3])
            below, above, after, before = (t[..., None] for t in (y - top, bottom - y, x_ - left, right - x_))
            slope_x = (v11 * below + v01 * above - v10 * below - v00 * above) * of_sample
            slope_y = (v11 * after + v10 * before - v01 * after - v00 * before) * of_sample
            slopes = torch.stack([slope_x.sum(-1), slope_y.sum(-1)], 1).where(inside[:, None], 0)
            moved += slopes * gamma * size.flip(1)[..., None, None]
    grad_input.copy_(gradient.permute(0, 3, 1, 2))
    if len(offset):
        grad_offset.copy_(moved)


def finite_only(rois: Tensor) -> tuple[Tensor, Tensor]:
    """The regions, emptied if they hold NaN or infinity, which crash torchvision; and which regions were emptied."""
    finite = rois.isfinite().all(1)
    return rois.where(finite[:, None], 0), ~finite[:, None, None, None]


def _extent(rois: Tensor, scale: float, shift: float) -> tuple[Tensor, Tensor]:
    """Start and size of the regions on the map, (N, 2) each as y, x."""
    start, end = rois[:, [2, 1]] * scale - shift, rois[:, [4, 3]] * scale - shift
    return start, end - start


def _moved(start: Tensor, size: Tensor, offset: Tensor, gamma: float) -> Tensor:
    """Start of the region for each cell, (N, 2, h, w) if the cells are shifted, else (N, 2, 1, 1)."""
    start = start[..., None, None]
    return start + gamma * size[..., None, None] * offset.flip(1) if len(offset) else start


def cell_samples(start: Tensor, size: Tensor, height: int, width: int,
                 sampling_ratio: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yields samples as :func:`each_sample` of the cells that divide regions of a start and a size."""
    cell = size / size.new_tensor([height, width])
    cells = torch.meshgrid(*(torch.arange(n, dtype=cell.dtype, device=cell.device) for n in (height, width)),
                           indexing='ij')
    return each_sample(start + torch.stack(cells) * cell[..., None, None], cell, sampling_ratio)


def each_sample(corner: Tensor, cell: Tensor, sampling_ratio: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yields one sample of every cell at a time, in mmcv's order.

    Args:
        corner: (N, 2, h, w), y and x of the cells' top left corners.
        cell: (N, 2), height and width of the cells.
        sampling_ratio: Samples of a cell along each axis; 0 for one a pixel.

    Yields:
        y and x, (N, h, w); whether the region has this sample, and its number of samples, (N, 1, 1, 1). A region
        without samples is yielded once, unused, with a number of 1.
    """
    if sampling_ratio > 0:
        grid, most = torch.full_like(cell, sampling_ratio), [sampling_ratio] * 2
    else:
        grid = cell.ceil()
        most = grid.amax(0).long().clamp(min=1).tolist() if len(grid) else [0, 0]
    count = grid.prod(1).where((grid > 0).all(1), 1).clamp(min=1)[:, None, None, None]
    for i in range(most[0]):
        for j in range(most[1]):
            turn = grid.new_tensor([i, j])
            y, x = (corner + ((turn + .5) * cell / grid.clamp(min=1))[..., None, None]).unbind(1)
            yield y, x, (turn < grid).all(1)[:, None, None, None], count


def pixels_around(y: Tensor, x: Tensor, height: int, width: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Row, column and weight of the four pixels around each point: top left, top right, bottom left, bottom right.

    Points up to one pixel outside the map get the value of the border; points beyond get 0.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.long(), x.long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = y - top, x - left
    return [(row, column, (a * b).where(inside, 0)) for row, a in ((top, 1 - down), (bottom, down))
            for column, b in ((left, 1 - along), (right, along))]


def bilinear(input: Tensor, batch: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Bilinear samples, (N, C, h, w), at the points y, x, (N, h, w); and the corners with values, (N, h, w, C)."""
    pixels, batch = input.permute(0, 2, 3, 1), batch.long()[:, None, None]
    corners = [(row, column, weight, pixels[batch, row, column])
               for row, column, weight in pixels_around(y, x, *input.shape[2:])]
    (_, _, w1, v1), (_, _, w2, v2), (_, _, w3, v3), (_, _, w4, v4) = corners
    value = w1[..., None] * v1 + w2[..., None] * v2 + w3[..., None] * v3 + w4[..., None] * v4
    return value.permute(0, 3, 1, 2), corners


def _pixels(low: Tensor, high: Tensor, scale: float, cells: int, length: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """First and last pixel of each cell along one side, (N, cells), and whether the cell has pixels."""
    start, end = low * scale, (high + 1) * scale
    step, number = ((end - start) / cells)[:, None], torch.arange(cells, dtype=low.dtype, device=low.device)
    first = (number * step + start[:, None]).floor().clamp(0, length)
    stop = ((number + 1) * step + start[:, None]).ceil().clamp(0, length)
    return (first, stop - 1), (stop > first) & (end > start)[:, None]
