"""Polygons and sets of nine points, as in mmcv's ``convex_iou``, ``min_area_polygons`` and others for CUDA.

A polygon is a pair of tensors (N, E, 2), the starts and the ends of its edges, in any order: each function sums over
the edges. An edge without length adds nothing, so such edges fill up polygons that have fewer. As in mmcv, the
functions compute in float64.
"""
from math import pi

import torch
from torch import Tensor

Edges = tuple[Tensor, Tensor]
PAIRS = 2 ** 15  # pairs of polygons that are intersected at once, a bound on memory


def convex_iou(pointsets: Tensor, polygons: Tensor, ious: Tensor) -> None:
    """Writes the overlaps of the hulls of ``pointsets``, (N, 18), with ``polygons``, (K, 8), into ``ious``, (N, K)."""
    hulls, quads = hull(_points(pointsets)), outline(_points(polygons))
    area, other = area_of(hulls), area_of(quads)
    ious.zero_()
    (low, high), (low_, high_) = ((start.amin(1), start.amax(1)) for start, _ in (hulls, quads))
    meet = ((low[:, None] < high_) & (low_ < high[:, None])).all(2).nonzero()
    for i, j in (pairs.unbind(1) for pairs in meet.split(PAIRS)):
        shared = shared_area((hulls[0][i], hulls[1][i]), (quads[0][j], quads[1][j]))
        ious[i, j] = (shared / (area[i] + other[j] - shared)).to(ious.dtype)


def convex_giou(pointsets: Tensor, polygons: Tensor, output: Tensor) -> None:
    """Writes the gradients of the points, 18, and the generalised overlaps (arXiv:1902.09630) into ``output``, (N, 19).

    Row by row the overlap is that of the hull of ``pointsets``, (N, 18), with ``polygons``, (N, 8).
    """
    with torch.enable_grad():
        points, corners = _points(pointsets).detach().requires_grad_(), _points(polygons).detach()
        hulls, quads = hull(points), outline(corners)
        shared = shared_area(hulls, quads)
        union = area_of(hulls) + area_of(quads) - shared
        around = area_of(hull(torch.cat([points, corners], 1)))
        overlap = shared / union - (around - union) / around
        gradient, = torch.autograd.grad(overlap.sum(), points)
    output[:, :18].copy_(gradient.flatten(1))
    output[:, 18].copy_(overlap.detach())


def min_area_polygons(pointsets: Tensor, polygons: Tensor) -> None:
    """Writes the corners of the smallest rectangle around each of ``pointsets``, (N, 18), into ``polygons``, (N, 8).

    One side of the smallest rectangle lies along an edge of the hull.
    """
    points = _points(pointsets)
    start, end = hull(points)
    x, y = (end - start).unbind(2)
    angle = torch.atan2(y, x).remainder(pi / 2)
    turned = _rotate(points[:, None], angle[..., None])  # (N, edges, 9, 2)
    low, high = turned.amin(2), turned.amax(2)
    area = (high - low).prod(2).where((x != 0) | (y != 0), torch.inf)
    best = area.argmin(1, keepdim=True)
    (x1, y1), (x2, y2) = (t.gather(1, best[..., None].expand(-1, -1, 2))[:, 0].t() for t in (low, high))
    corners = torch.stack([torch.stack([x2, x1, x1, x2], 1), torch.stack([y1, y1, y2, y2], 1)], 2)
    polygons.copy_(_rotate(corners, -angle.gather(1, best)).flatten(1))


def points_in_polygons_forward(points: Tensor, polygons: Tensor, output: Tensor) -> None:
    """Writes whether ``points``, (B, 2), are in ``polygons``, (M, 8), as 1 and 0 into ``output``, (B, M).

    Counts the edges to the right of a point. As in mmcv, the count ends at the first edge that holds the point.
    """
    px, py = points.float()[:, None].unbind(2)
    x, y = polygons.float().unflatten(1, (4, 2)).unbind(2)
    counting = torch.ones(len(points), len(polygons), dtype=torch.bool, device=points.device)
    odd = torch.zeros_like(counting)
    for i in range(4):
        sx, sy, tx, ty = x[:, i], y[:, i], x[:, i - 1], y[:, i - 1]
        crosses = (sy < py) != (ty < py)
        at = sx + (py - sy) * (tx - sx) / (ty - sy)
        corner = ((sx == px) & (sy == py)) | ((tx == px) & (ty == py))
        counting &= ~(corner | (crosses & (at == px)))
        odd ^= counting & crosses & (at > px)
    output.copy_(odd)


def outline(corners: Tensor) -> Edges:
    """The polygon through ``corners``, (N, E, 2)."""
    return corners, corners.roll(-1, 1)


def hull(points: Tensor) -> Edges:
    """The convex hull of ``points``, (N, E, 2), a polygon with one edge for each point, without length inside the hull.

    From a point, the hull goes to the point that has no other to its right. Of points in a line, the hull takes the
    farthest; of equal points, the first.
    """
    number, fixed = points.shape[1], points.detach()
    step = fixed[:, None] - fixed[:, :, None]  # (N, from, to, 2)
    same = (step == 0).all(3)
    first = ~same.tril(-1).any(2)  # (N, E)
    leads = ~same & first[:, :, None] & first[:, None]
    for k in range(number):
        away = fixed[:, None, None, k] - fixed[:, :, None]  # (N, from, 1, 2)
        side = step[..., 0] * away[..., 1] - step[..., 1] * away[..., 0]
        between = (away * (away - step)).sum(3) <= 0
        leads &= (side > 0) | ((side == 0) & between)
    following = torch.where(leads.any(2), leads.to(torch.uint8).argmax(2), torch.arange(number, device=points.device))
    return points, points.gather(1, following[..., None].expand_as(points))


def area_of(polygon: Edges) -> Tensor:
    """Area, (N,)."""
    start, end = polygon
    start, end = start - polygon[0][:, :1], end - polygon[0][:, :1]
    return (start[..., 0] * end[..., 1] - start[..., 1] * end[..., 0]).sum(1).abs() / 2


def shared_area(first: Edges, second: Edges) -> Tensor:
    """Area that the polygons share, (N,).

    A polygon is the sum of the strips below its edges; a strip counts as negative if its edge runs backwards. So the
    shared area is the sum, over all pairs of edges, of the area below both.
    """
    origin = first[0][:, :1]
    (x1, y1), (x2, y2) = ((t - origin)[:, :, None].unbind(3) for t in first)
    (x3, y3), (x4, y4) = ((t - origin)[:, None].unbind(3) for t in second)
    low = torch.maximum(torch.minimum(x1, x2), torch.minimum(x3, x4))
    high = torch.minimum(torch.maximum(x1, x2), torch.maximum(x3, x4))
    slope, slope_ = (y2 - y1) / (x2 - x1).where(x1 != x2, 1), (y4 - y3) / (x4 - x3).where(x3 != x4, 1)
    # heights of both edges at the ends of the strip, and the mean height of the lower one
    a, b = y1 + slope * (low - x1), y1 + slope * (high - x1)
    c, d = y3 + slope_ * (low - x3), y3 + slope_ * (high - x3)
    above, apart = (a - c).clamp(min=0) + (b - d).clamp(min=0), (a - c).abs() + (b - d).abs()
    lower = (a + b - above.square() / apart.where(apart != 0, 1)) / 2
    sign = (x2 - x1).sign() * (x4 - x3).sign()
    return (sign * lower * (high - low).clamp(min=0)).sum((1, 2)).abs()


def _points(flat: Tensor) -> Tensor:
    """(N, 2 * E) as points in float64, (N, E, 2)."""
    return flat.double().unflatten(1, (-1, 2))


def _rotate(points: Tensor, angle: Tensor) -> Tensor:
    """``points``, (..., 2), in axes that are turned by ``angle``, (...)."""
    (x, y), cos, sin = points.unbind(-1), angle.cos(), angle.sin()
    return torch.stack([x * cos + y * sin, y * cos - x * sin], -1)
