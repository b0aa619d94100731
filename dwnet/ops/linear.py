"""A Linear layer whose bias and GELU cost no pass over the map of their own, for inference on a CPU."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .depthwise import autocast_to


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False) -> Tensor:
    """``F.linear``, and ``F.gelu`` behind it.

    In inference on a CPU it is the fused operator that torch.compile uses there; elsewhere, and where a graph is
    recorded, it is torch's own two.

    Args:
        x: (..., C).
        weight: (D, C).
        bias: (D,).
        gelu: Whether the exact GELU follows.

    Returns:
        (..., D), of the dtype of ``x``, or that of autocast.
    """
    if not _can_fuse(x):
        y = F.linear(x, weight, bias)
        return F.gelu(y) if gelu else y
    x, weight, bias = autocast_to(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'gelu' if gelu else 'none', [], 'none')


def _can_fuse(x: Tensor) -> bool:
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()
    return (x.device.type == 'cpu' and not recorded and x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0
            and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise'))
