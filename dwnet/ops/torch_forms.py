"""The three operators made of torch's own, forward and backward, for the CPU and as a fallback on GPUs.

Nothing here is as large as the k² neighbourhoods of all positions: every image, or every tap of the kernel, is
one operation on whole maps.
"""
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

CACHED_VALUES = 2**19  # predicted at once in inference: 2 MiB in float32


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Channels-last if neighbouring channels lie side by side, else contiguous."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    return torch.channels_last if last else torch.contiguous_format


def depthwise_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, C, H, W) with kernels (N, C, k, k); N is 1, one for all images, or B.

    One convolution an image: as a single one of B·C groups it could not stay in channels-last.
    """
    fmt = memory_format_of(x)
    if len(weight) == 1:
        return _conv(x, weight[0], bias).contiguous(memory_format=fmt)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=fmt)
    for out, image, kernels in zip(y.split(1), x.split(1), weight):
        out.copy_(_conv(image, kernels, bias))
    return y


def _conv(x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    """(B, C, H, W) with kernels (C, k, k)."""
    return F.conv2d(x, kernels.unsqueeze(1), bias, padding=kernels.shape[-1] // 2, groups=x.shape[1])


def depthwise_backward(grad_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of ``x`` and of the kernels (N, C, k, k)."""
    if len(weight) == 1:
        grad_x, grad_weight = _conv_backward(grad_y, x, weight[0])
        return grad_x, grad_weight.unsqueeze(0)
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    grad_weight = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    for i, kernels in enumerate(weight):
        part, grad_weight[i] = _conv_backward(grad_y[i:i + 1], x[i:i + 1], kernels)
        grad_x[i:i + 1] = part
    return grad_x, grad_weight


def _conv_backward(grad_y: Tensor, x: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    pad = [kernels.shape[-1] // 2] * 2
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_y, x, kernels.unsqueeze(1), None, [1, 1], pad, [1, 1], False, [0, 0], x.shape[1], [True, True, False])
    return grad_x, grad_weight.squeeze(1)


def inhomogeneous_forward(x: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H, W) with kernels (B, G, k, k, H, W): one multiply-add of whole maps for each of the k² taps."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    return y.copy_(_correlate(x, _pad_groups(x, weight.shape[1], weight.shape[2] // 2), weight))


def _correlate(x: Tensor, padded: Tensor, weight: Tensor) -> Tensor:
    """The sum over all taps, (B, C, H, W), of a map like ``x``, padded and grouped, times its kernels."""
    y = _grouped_zeros(x, weight.shape[1])
    for kernel, rows, columns in _taps(x, weight):
        y.addcmul_(kernel, padded[..., rows, columns])
    return y.flatten(1, 2)


def inhomogeneous_backward(grad_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of ``x`` and of the kernels (B, G, k, k, H, W)."""
    groups, size = weight.shape[1:3]
    padded = _pad_groups(x, groups, size // 2)
    grad_padded = torch.zeros_like(padded)
    grad = _grouped_zeros(x, groups).copy_(grad_y.unflatten(1, (groups, -1)))  # (B, G, C/G, H, W)
    grad_weight = torch.empty_like(weight)
    for tap, (kernel, rows, columns) in enumerate(_taps(x, weight)):
        grad_padded[..., rows, columns].addcmul_(kernel, grad)
        grad_weight[:, :, tap // size, tap % size] = (grad * padded[..., rows, columns]).sum(2)
    edge = size // 2
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    grad_x.unflatten(1, (groups, -1)).copy_(grad_padded[..., edge:edge + x.shape[2], edge:edge + x.shape[3]])
    return grad_x, grad_weight


def predict_and_apply(x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, groups: int, size: int) -> Tensor:
    """``inhomogeneous_forward(x, predict_in_order(hidden, …))``, for inference on a CPU.

    The kernels of a few rows at a time are predicted and used while they are in the processor's cache; all of
    them together are many times as large as the map.
    """
    edge, (batch, _, height, width) = size // 2, x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    rows = max(1, CACHED_VALUES // (groups * size**2 * width))
    for i in range(batch):
        padded = _pad_groups(x[i:i + 1], groups, edge)
        for first in range(0, height, rows):
            last = min(first + rows, height)
            kernels = predict_in_order(hidden[i:i + 1, :, first:last], weight, bias, groups, size)
            part = y[i:i + 1, :, first:last]
            part.copy_(_correlate(part, padded[..., first:last + 2 * edge, :], kernels))
    return y


def predict_in_order(hidden: Tensor, weight: Tensor, bias: Tensor, groups: int, size: int) -> Tensor:
    """A 1×1 convolution whose output lies in memory as :func:`inhomogeneous_forward` reads it.

    Args:
        hidden: (B, C, H, W).
        weight: (G·k·k, C, 1, 1).
        bias: (G·k·k,); a column of ones takes it into the product, which saves a pass over the output.

    Returns:
        (B, G, k, k, H, W).
    """
    batch, _, height, width = hidden.shape
    hidden = torch.cat([hidden.flatten(2), hidden.new_ones(batch, 1, height * width)], 1)  # (B, C + 1, H·W)
    weight = torch.cat([weight.flatten(1), bias.view(-1, 1)], 1)  # (G·k·k, C + 1)
    if _rows_run_innermost(width):
        kernel = torch.bmm(weight.expand(batch, -1, -1), hidden)  # (B, G·k·k, H·W)
        return kernel.view(batch, groups, size, size, height, width)
    weight = weight.unflatten(0, (groups, -1)).transpose(0, 1).flatten(0, 1)  # (k·k·G, C + 1)
    kernel = hidden.transpose(1, 2) @ weight.t()  # (B, H·W, k·k·G)
    return kernel.view(batch, height, width, size, size, groups).permute(0, 5, 3, 4, 1, 2)


def _rows_run_innermost(width: int) -> bool:
    """Whether a row of the map, or the groups at a position, lie side by side in memory: what does should be long."""
    return width > 16


def _order(x: Tensor) -> tuple[int, ...]:
    """How (B, G, C/G, H, W) lies in memory."""
    return (0, 1, 2, 3, 4) if _rows_run_innermost(x.shape[3]) else (0, 3, 4, 2, 1)


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _grouped_zeros(x: Tensor, groups: int, edge: int = 0) -> Tensor:
    batch, channels, height, width = x.shape
    shape = (batch, groups, channels // groups, height + 2 * edge, width + 2 * edge)
    return torch.empty_permuted(shape, _order(x), dtype=_sum_dtype(x), device=x.device).zero_()


def _pad_groups(x: Tensor, groups: int, edge: int) -> Tensor:
    """(B, G, C/G, H + 2·edge, W + 2·edge)"""
    height, width = x.shape[2:]
    padded = _grouped_zeros(x, groups, edge)
    padded[..., edge:edge + height, edge:edge + width] = x.unflatten(1, (groups, -1))
    return padded


def _taps(x: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, slice, slice]]:
    """For each tap its kernels, (B, G, 1, H, W), and the rows and columns of the padded map that they see."""
    size, (height, width) = weight.shape[2], x.shape[2:]
    kernels = weight.flatten(2, 3)  # (B, G, k·k, H, W)
    innermost = 4 if _rows_run_innermost(width) else 1
    if kernels.stride(innermost) != 1:
        order = (0, 1, 2, 3, 4) if innermost == 4 else (0, 3, 4, 2, 1)
        kernels = torch.empty_permuted(kernels.shape, order, dtype=weight.dtype, device=weight.device).copy_(kernels)
    for tap, kernel in enumerate(kernels.unbind(2)):
        row, column = divmod(tap, size)
        yield kernel.unsqueeze(2).to(_sum_dtype(x)), slice(row, row + height), slice(column, column + width)
