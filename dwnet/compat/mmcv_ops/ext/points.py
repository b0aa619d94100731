"""Sets of points: chamfer distance, points in boxes in space, voxels.

As in mmcv's ``chamfer_distance_cuda_kernel.cuh``, ``points_in_boxes.cpp`` and ``voxelization.cpp``.
"""
import torch
from torch import Tensor

from .precision import wide


def chamfer_distance_forward(xyz1: Tensor, xyz2: Tensor, dist1: Tensor, dist2: Tensor, idx1: Tensor,
                             idx2: Tensor) -> None:
    """Writes each point's squared distance to the nearest point of the other set, and the index of that point.

    ``xyz1`` is (B, N, 2), ``xyz2`` (B, M, 2); ``dist1`` and ``idx1`` are (B, N), ``dist2`` and ``idx2`` (B, M).
    """
    distances = (wide(xyz1)[:, :, None] - wide(xyz2)[:, None]).square().sum(-1)  # (B, N, M)
    for axis, distance, index in ((2, dist1, idx1), (1, dist2, idx2)):
        nearest = distances.min(axis)
        distance.copy_(nearest.values), index.copy_(nearest.indices)


def chamfer_distance_backward(xyz1: Tensor, xyz2: Tensor, idx1: Tensor, idx2: Tensor, graddist1: Tensor,
                              graddist2: Tensor, gradxyz1: Tensor, gradxyz2: Tensor) -> None:
    """Writes the gradients of :func:`chamfer_distance_forward` into ``gradxyz1`` and ``gradxyz2``."""
    first, second = wide(xyz1), wide(xyz2)
    near1, near2 = (i.long()[..., None].expand(-1, -1, 2) for i in (idx1, idx2))
    from1 = 2 * graddist1[..., None] * (first - second.gather(1, near1))  # (B, N, 2)
    from2 = 2 * graddist2[..., None] * (second - first.gather(1, near2))  # (B, M, 2)
    gradxyz1.copy_(from1.scatter_add(1, near2, -from2))
    gradxyz2.copy_(from2.scatter_add(1, near1, -from1))


def points_in_boxes_cpu_forward(boxes_tensor: Tensor, pts_tensor: Tensor, pts_indices_tensor: Tensor) -> None:
    """Writes whether each point lies in each box, 1 or 0, into ``pts_indices_tensor``, (N, points).

    Args:
        boxes_tensor: (N, 7), centre x, y and bottom z, sizes along x, y, z, and the angle around z in radians.
        pts_tensor: (points, 3) as x, y, z.
        pts_indices_tensor: See above.
    """
    pts_indices_tensor.copy_(_inside(boxes_tensor, pts_tensor))


def points_in_boxes_part_forward(boxes_tensor: Tensor, pts_tensor: Tensor, box_idx_of_points_tensor: Tensor) -> None:
    """Writes the first box that holds each point into ``box_idx_of_points_tensor``, (B, points), -1 before.

    The boxes are (B, N, 7), the points (B, points, 3).
    """
    inside = _inside(boxes_tensor, pts_tensor)  # (B, N, points)
    if boxes_tensor.shape[1]:
        first = inside.int().argmax(1)  # the first of the largest
        box_idx_of_points_tensor.copy_(torch.where(inside.any(1), first, box_idx_of_points_tensor))


def points_in_boxes_all_forward(boxes_tensor: Tensor, pts_tensor: Tensor, box_idx_of_points_tensor: Tensor) -> None:
    """Writes whether each point lies in each box, 1 or 0, into ``box_idx_of_points_tensor``, (B, points, N).

    The boxes are (B, N, 7), the points (B, points, 3).
    """
    box_idx_of_points_tensor.copy_(_inside(boxes_tensor, pts_tensor).transpose(1, 2))


def _inside(boxes: Tensor, points: Tensor) -> Tensor:
    """Whether the points, (..., points, 3), lie in the boxes, (..., N, 7): (..., N, points).

    The top and the bottom of a box belong to it, its sides do not.
    """
    boxes, points = wide(boxes)[..., None], wide(points)[..., None, :, :]
    x, y, z, length, width, height, angle = boxes.unbind(-2)  # (..., N, 1)
    right, ahead, up = points.unbind(-1)  # (..., 1, points)
    right, ahead, cos, sin = right - x, ahead - y, (-angle).cos(), (-angle).sin()
    along, across = right * cos - ahead * sin, right * sin + ahead * cos
    return (((up - (z + height / 2)).abs() <= height / 2) & (along.abs() < length / 2) & (across.abs() < width / 2))


def dynamic_voxelize_forward(points: Tensor, voxel_size: Tensor, coors_range: Tensor, coors: Tensor,
                             NDim: int = 3) -> None:
    """Writes the voxel of each point, (points, 3) as z, y, x, into ``coors``; -1 for points outside the range.

    Args:
        points: (points, features), x, y, z first.
        voxel_size: (3,) as x, y, z.
        coors_range: (6,), the smallest x, y, z, then the largest.
        coors: See above.
        NDim: Number of coordinates.
    """
    coors.copy_(_voxels(points, voxel_size, coors_range, NDim)[0])


def hard_voxelize_forward(points: Tensor, voxel_size: Tensor, coors_range: Tensor, voxels: Tensor, coors: Tensor,
                          num_points_per_voxel: Tensor, voxel_num: Tensor, max_points: int, max_voxels: int,
                          NDim: int = 3, deterministic: bool = True) -> None:
    """Writes the points of each voxel; voxels and points are numbered in the order of ``points``.

    Args:
        points: See :func:`dynamic_voxelize_forward`, as ``voxel_size``, ``coors_range`` and ``NDim``.
        voxel_size: See above.
        coors_range: See above.
        voxels: (max_voxels, max_points, features).
        coors: (max_voxels, 3) as z, y, x.
        num_points_per_voxel: (max_voxels,).
        voxel_num: (), the number of voxels is written.
        max_points: Further points of a voxel are dropped.
        max_voxels: Points of further voxels are dropped.
        NDim: See above.
        deterministic: Unused; mmcv's other order is that of a GPU's threads.
    """
    places, grid = _voxels(points, voxel_size, coors_range, NDim)
    known = places[:, 0] >= 0
    points, places = points[known], places[known]
    number = torch.zeros_like(places[:, 0])  # of the cell in the grid
    for axis in range(NDim):
        number = number * grid[NDim - 1 - axis] + places[:, axis]
    _, of_point = number.unique(return_inverse=True)
    order = torch.arange(len(points), device=points.device)
    first = torch.full_like(order, len(points)).scatter_reduce(0, of_point, order, 'amin')  # point of each voxel
    rank = torch.empty_like(first).scatter_(0, first.argsort(), order)  # of each voxel, by its first point
    of_point = rank[of_point]
    kept = of_point < max_voxels
    points, places, of_point = points[kept], places[kept], of_point[kept]
    of_point, order = of_point.sort(stable=True)
    sizes = of_point.bincount(minlength=1)
    turn = torch.arange(len(of_point), device=points.device) - (sizes.cumsum(0) - sizes)[of_point]
    kept = turn < max_points
    voxels[of_point[kept], turn[kept]] = points[order[kept]].to(voxels.dtype)
    coors[of_point] = places[order].to(coors.dtype)
    total = int(of_point[-1]) + 1 if len(of_point) else 0
    num_points_per_voxel[:total] = sizes[:total].clamp(max=max_points).to(num_points_per_voxel.dtype)
    voxel_num.fill_(total)


def _voxels(points: Tensor, voxel_size: Tensor, coors_range: Tensor, axes: int) -> tuple[Tensor, list[int]]:
    """Voxel of each point as z, y, x, or -1; and the size of the grid as x, y, z."""
    low, high = coors_range[:axes], coors_range[axes:]
    grid = ((high - low) / voxel_size + .5).floor().to(points.device)  # as C rounds
    place = ((wide(points)[:, :axes] - low.to(points.device)) / voxel_size.to(points.device)).floor()
    inside = ((place >= 0) & (place < grid)).all(1)
    return place.where(inside[:, None], -1).flip(1).long(), grid.long().tolist()
