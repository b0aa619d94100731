"""The order of an intersection's corners, of which ``mmcv.ops.diff_iou_rotated_2d`` and ``_3d`` compute the area.

As in mmcv's ``diff_iou_rotated_cuda_kernel.cuh``. There a vertex at the height of the mean is lost, and more than eight
vertices are written out of bounds. Here the vertices are sorted by their angle, and the eight that lie apart are taken.
"""
import torch
from torch import Tensor

from .precision import wide

CORNERS = 8  # of the intersection of two rectangles, at most
CROSSINGS = 8  # place of the first crossing of edges among the vertices, after the corners of both boxes


def diff_iou_rotated_sort_vertices_forward(vertices: Tensor, mask: Tensor, num_valid: Tensor) -> Tensor:
    """Places of the valid vertices by rising angle, then of the first one again, then of an invalid one.

    Args:
        vertices: (B, N, 24, 2), relative to the mean of the valid ones; an invalid crossing is zero.
        mask: (B, N, 24), whether a vertex is valid.
        num_valid: (B, N), how many are.

    Returns:
        (B, N, 9) int32. Of fewer than three vertices, all are the invalid one.
    """
    x, y = wide(vertices).unbind(-1)
    order = torch.atan2(y, x).masked_fill(~mask, torch.inf).argsort(-1)
    place = torch.arange(mask.shape[-1], device=mask.device)
    # More than eight are valid if boxes nearly coincide: of vertices that lie close together, the first one is taken
    x, y = x.gather(-1, order), y.gather(-1, order)
    before, from_first = (x - x.roll(1, -1), y - y.roll(1, -1)), (x - x[..., :1], y - y[..., :1])
    apart = torch.minimum(torch.hypot(*before), torch.hypot(*from_first))
    apart = apart.masked_fill(place == 0, torch.inf).masked_fill(place >= num_valid[..., None], -1)
    taken = order.gather(-1, apart.topk(CORNERS, -1)[1].sort(-1)[0])
    count = num_valid[..., None].clamp(max=CORNERS)
    spare = mask[..., CROSSINGS:].to(torch.uint8).argmin(-1, keepdim=True) + CROSSINGS
    place = place[:CORNERS + 1]
    ring = torch.cat([taken, spare], -1).where(place != count, taken[..., :1])
    return ring.where((place <= count) & (count >= 3), spare).int()
