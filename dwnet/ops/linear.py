"""A Linear layer whose bias, GELU or residual cost no pass over the map of their own, for inference on a CPU."""
import torch
import torch.nn.functional as F
from torch import Tensor

from .depthwise import autocast_to


def linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
    """``F.linear``, and behind it ``F.gelu`` or the sum with ``residual``.

    In inference on a CPU it is the fused operator that torch.compile uses there for constant weights; elsewhere, and
    where a graph is recorded, it is torch's own two.

    Args:
        x: (..., C).
        weight: (D, C).
        bias: (D,).
        gelu: Whether the exact GELU follows.
        residual: What is added, (..., D); not together with ``gelu``.

    Returns:
        (..., D), of the dtype of ``x``, or that of autocast.
    """
    if not _can_fuse(x):
        y = F.linear(x, weight, bias)
        y = F.gelu(y) if gelu else y
        return y if residual is None else residual + y
    x, weight, bias = autocast_to(x, weight, bias)
    if residual is not None:
        if residual.dtype != x.dtype:  # under autocast
            return residual + torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], 'none')
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, 'add')
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'gelu' if gelu else 'none', [], 'none')


def _can_fuse(x: Tensor) -> bool:
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()
    return (x.device.type == 'cpu' and not recorded and x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0
            and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise'))
