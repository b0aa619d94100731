"""The three operators in PyTorch's operators, forward and backward, for the CPU and as a fallback on GPUs.

No intermediate holds the k² neighbourhoods of all positions: each image, or each tap of the kernel, is one operation
on whole maps.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Inference of the inhomogeneous operator works on parts of the map with at most so many values of kernels and of sums.
CACHED_KERNELS, CACHED_SUMS = 2**22, 2**18
# The dynamic operator joins the images up to so many positions of a map, where joining was faster (benchmarks/cpu).
JOINED_FORWARD, JOINED_BACKWARD = 256, 64
# DepthwiseOfSmallMaps is used up to so many positions of a map. One thread of a Xeon, 64 images, oneDNN → pairs:
# 2×2 positions, 256 channels, 3.3 → 1.1 ms (with AVX2 alone 10.7 → 1.0); 4×4, 128 channels, 3.4 → 1.2 (7.9 → 1.0);
# 8×8, 64 channels, 3.8 → 2.6 (2.2 → 2.3).
PAIRED = 16


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Channels-last if neighbouring channels are adjacent in memory, else contiguous."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    return torch.channels_last if last else torch.contiguous_format


def empty_like(x: Tensor) -> Tensor:
    """A dense map of the shape, dtype and memory format of ``x``."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def depthwise_forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolves (B, C, H, W) with kernels (N, C, k, k); N is 1 (static) or B (dynamic).

    With dynamic kernels, small images are joined into one image of B·C channels. Joining breaks channels-last, so
    large images are convolved one by one.
    """
    fmt = memory_format_of(x)
    if not x.numel():
        return empty_like(x)
    if len(weight) == 1:
        return _conv(x, weight[0], bias).contiguous(memory_format=fmt)
    if x[0, 0].numel() <= JOINED_FORWARD:
        y = _conv(_join(x), weight.flatten(0, 1), None if bias is None else bias.repeat(len(x)))
        return y.view(x.shape).contiguous(memory_format=fmt)
    images = [_conv(image, kernels, bias) for image, kernels in zip(x.split(1), weight)]
    return torch.cat(images).contiguous(memory_format=fmt)


def _join(x: Tensor) -> Tensor:
    """(B, C, H, W) → (1, B·C, H, W)"""
    return x.reshape(1, -1, *x.shape[2:])


def _conv(x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    """Convolves (B, C, H, W) with kernels (C, k, k)."""
    return F.conv2d(x, kernels.unsqueeze(1), bias, padding=kernels.shape[-1] // 2, groups=x.shape[1])


def depthwise_backward(grad_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of ``x`` and of the kernels (N, C, k, k)."""
    if not x.numel():
        return empty_like(x), torch.zeros_like(weight)
    if len(weight) == 1:
        grad_x, grad_weight = _conv_backward(grad_y, x, weight[0])
        return grad_x.contiguous(memory_format=memory_format_of(x)), grad_weight.unsqueeze(0)
    if x[0, 0].numel() <= JOINED_BACKWARD:
        grad_x, grad_weight = _conv_backward(_join(grad_y), _join(x), weight.flatten(0, 1))
        return grad_x.view(x.shape).contiguous(memory_format=memory_format_of(x)), grad_weight.view(weight.shape)
    grads_x, grads_weight = zip(*(_conv_backward(*parts) for parts in zip(grad_y.split(1), x.split(1), weight)))
    return torch.cat(grads_x).contiguous(memory_format=memory_format_of(x)), torch.stack(grads_weight)


def trains_on_small_maps(x: Tensor, weight: Tensor) -> bool:
    """Whether this call should use :class:`DepthwiseOfSmallMaps`."""
    if recorded_for_others() or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    small = x.shape[2] * x.shape[3] <= PAIRED
    return small and x.is_cpu and weight.requires_grad and x.dtype in (torch.float32, torch.float64)


class DepthwiseOfSmallMaps(torch.autograd.Function):
    """Static convolution with a fast gradient of the kernels (C, 1, k, k) on small maps, for training on a CPU.

    On maps of a few positions oneDNN takes 20 to 60 times as long for the gradient of the kernels as for the
    convolution. Here one matrix product correlates every position of the input with every position of the output
    gradient, and a second product sums the pairs of each tap.
    """
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _conv(x, weight.squeeze(1), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _conv(grad_y, weight.squeeze(1).flip(1, 2), None)
        if ctx.needs_input_grad[1]:
            inputs = x.permute(1, 2, 3, 0).flatten(1, 2)  # (C, H·W, B)
            outputs = grad_y.permute(1, 0, 2, 3).flatten(2)  # (C, B, H·W)
            pairs = torch.bmm(inputs, outputs).flatten(1)  # (C, H·W·H·W)
            taps = _tap_of_each_pair(x.shape[2], x.shape[3], weight.shape[-1])
            grad_weight = (pairs @ taps.to(x.dtype)).view(weight.shape)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_y.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias


def _tap_of_each_pair(height: int, width: int, size: int) -> Tensor:
    """(H·W·H·W, k·k): 1 where the tap connects the pair's input position to the pair's output position."""
    row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
    tap_row, tap_column = (length[:, None] - length + size // 2 for length in (row, column))
    inside = (tap_row >= 0) & (tap_row < size) & (tap_column >= 0) & (tap_column < size)
    tap = torch.where(inside, tap_row * size + tap_column, size**2).flatten()
    return F.one_hot(tap, size**2 + 1)[:, :-1].float()


def _conv_backward(grad_y: Tensor, x: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    pad = [kernels.shape[-1] // 2] * 2
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_y, x, kernels.unsqueeze(1), None, [1, 1], pad, [1, 1], False, [0, 0], x.shape[1], [True, True, False])
    return grad_x, grad_weight.squeeze(1)


def inhomogeneous_forward(x: Tensor, weight: Tensor) -> Tensor:
    """Applies kernels (B, G, k, k, H, W) to (B, C, H, W), with one multiply-add of whole maps for each of k² taps."""
    groups, size = weight.shape[1:3]
    padded, sums = _pad_groups(x, groups, size // 2), _grouped_zeros(x, groups)
    for kernel, rows, columns in _taps(x, weight):
        sums.addcmul_(kernel, padded[..., rows, columns])
    y = empty_like(x)
    return y.copy_(sums.flatten(1, 2))


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
    grad_x = empty_like(x)
    grad_x.unflatten(1, (groups, -1)).copy_(grad_padded[..., edge:edge + x.shape[2], edge:edge + x.shape[3]])
    return grad_x, grad_weight


OPERATORS_KEPT = ContextVar('operators_kept', default=False)


@contextmanager
def operators_kept() -> Iterator[None]:
    """Graphs that are recorded inside hold the operator of dynamic kernels, for an exporter that translates it."""
    token = OPERATORS_KEPT.set(True)
    try:
        yield
    finally:
        OPERATORS_KEPT.reset(token)


def recorded_for_others() -> bool:
    """Whether torch.export records a graph, which must run without this project at any batch and size."""
    if torch.compiler.is_dynamo_compiling():  # under torch.compile is_exporting is true as well
        return False
    return getattr(torch.compiler, 'is_exporting', bool)()  # new in PyTorch 2.7


def as_one_image(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolves (B, C, H, W) with kernels (B, C, k, k), as one image of B·C channels."""
    y = _conv(_join(x), weight.flatten(0, 1), None).view(x.shape)
    return y if bias is None else y + bias.view(-1, 1, 1)


def sum_of_taps(x: Tensor, weight: Tensor) -> Tensor:
    """Applies kernels (B, G, k, k, H, W) to (B, C, H, W) by stock operators."""
    groups, size = weight.shape[1:3]
    height, width = x.shape[2:]
    padded = F.pad(x, [size // 2] * 4).unflatten(1, (groups, -1))  # (B, G, C/G, H + k - 1, W + k - 1)
    sums: Any = 0
    for tap in range(size**2):
        row, column = divmod(tap, size)
        sums = sums + weight[:, :, row, column].unsqueeze(2) * padded[..., row:row + height, column:column + width]
    return sums.flatten(1, 2)


def predict_and_apply(x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, groups: int, size: int) -> Tensor:
    """``inhomogeneous_forward`` with kernels from a 1×1 convolution of ``hidden``, for inference on a CPU.

    All kernels together are many times as large as the maps, so the kernels of a part of the maps are predicted and
    used while they are in the processor's cache. Consecutive rows share k//2 zeros of padding, so each tap reads one
    contiguous run of memory.
    """
    if not x.numel():
        return empty_like(x)
    batch, channels, height, width = x.shape
    edge, stride = size // 2, width + size // 2
    values = min(CACHED_KERNELS // (groups * size**2), CACHED_SUMS // channels)
    rows = -(-height // -(-height * stride // max(stride, values)))  # parts of equal size
    images = max(1, values // (height * stride))
    weight = torch.cat([weight.flatten(1), bias.view(-1, 1)], 1)  # (G·k·k, C + 1); saves a pass over the kernels
    # one buffer for all parts: allocating memory costs more than the product
    buffer = hidden.new_empty(min(images, batch) * rows * stride * groups * size**2)
    y = empty_like(x)
    for x_part, hidden_part, y_part in zip(x.split(images), hidden.split(images), y.split(images)):
        count = len(x_part)
        shape = (count, channels, height + size + size // stride, stride)  # extra rows: a tap reads past the end
        padded = torch.zeros(shape, dtype=_sum_dtype(x), device=x.device)
        padded[:, :, edge:edge + height, edge:] = x_part
        padded = padded.view(count, groups, channels // groups, -1)
        ones = hidden.new_ones(count, weight.shape[1], height, stride)
        ones[:, :-1, :, :width] = hidden_part  # the last channel meets the bias
        for first in range(0, height, rows):
            part = y_part[:, :, first:first + rows]
            positions = part.shape[2] * stride
            kernels = buffer[:count * len(weight) * positions].view(count, -1, positions)  # (B, G·k·k, …)
            torch.bmm(weight.expand(count, -1, -1), ones[:, :, first:first + rows].flatten(2), out=kernels)
            kernels = kernels.view(count, groups, size**2, 1, positions).to(padded.dtype)
            sums = padded.new_zeros(*padded.shape[:3], positions)
            for tap, kernel in enumerate(kernels.unbind(2)):
                begin = (first + tap // size) * stride + tap % size
                sums.addcmul_(kernel, padded[..., begin:begin + positions])
            part.copy_(sums.view(count, channels, -1, stride)[..., :width])
    return y


def predict_in_order(hidden: Tensor, weight: Tensor, bias: Tensor, groups: int, size: int,
                     rows_innermost: bool) -> Tensor:
    """Predicts the kernels by a 1×1 convolution, in the memory order in which the operator reads them.

    Args:
        hidden: (B, C, H, W).
        weight: (G·k·k, C, 1, 1).
        bias: (G·k·k,).
        groups: G.
        size: k.
        rows_innermost: The columns of a row are adjacent in memory; otherwise the groups at a position are.

    Returns:
        (B, G, k, k, H, W).
    """
    batch, _, height, width = hidden.shape
    if rows_innermost:
        # the bias as a column of the weights saves a pass over the output
        hidden = torch.cat([hidden.flatten(2), hidden.new_ones(batch, 1, height * width)], 1)  # (B, C + 1, H·W)
        weight = torch.cat([weight.flatten(1), bias.view(-1, 1)], 1)  # (G·k·k, C + 1)
        return torch.bmm(weight.expand(batch, -1, -1), hidden).view(batch, groups, size, size, height, width)
    weight = weight.view(groups, size**2, -1).transpose(0, 1).flatten(0, 1)  # (k·k·G, C)
    bias = bias.view(groups, size**2).t().flatten()
    kernels = F.linear(hidden.permute(0, 2, 3, 1), weight, bias)  # (B, H, W, k·k·G)
    return kernels.view(batch, height, width, size, size, groups).permute(0, 5, 3, 4, 1, 2)


def rows_run_innermost(width: int) -> bool:
    """Whether columns, rather than groups, are innermost in memory: the innermost dimension should be long."""
    return width > 16


def _order(width: int) -> tuple[int, ...]:
    """Memory order of (B, G, C/G, H, W) and of (B, G, k·k, H, W)."""
    return (0, 1, 2, 3, 4) if rows_run_innermost(width) else (0, 3, 4, 2, 1)


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _grouped_zeros(x: Tensor, groups: int, edge: int = 0) -> Tensor:
    batch, channels, height, width = x.shape
    shape = (batch, groups, channels // groups, height + 2 * edge, width + 2 * edge)
    return torch.empty_permuted(shape, _order(width), dtype=_sum_dtype(x), device=x.device).zero_()


def _pad_groups(x: Tensor, groups: int, edge: int) -> Tensor:
    """(B, G, C/G, H + 2·edge, W + 2·edge)"""
    height, width = x.shape[2:]
    padded = _grouped_zeros(x, groups, edge)
    padded[..., edge:edge + height, edge:edge + width] = x.unflatten(1, (groups, -1))
    return padded


def _taps(x: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, slice, slice]]:
    """Yields each tap's weights, (B, G, 1, H, W), and the rows and columns of the padded map that the tap reads."""
    size, (height, width) = weight.shape[2], x.shape[2:]
    kernels, order = weight.flatten(2, 3), _order(width)  # (B, G, k·k, H, W)
    if kernels.stride(order[-1]) != 1:
        kernels = torch.empty_permuted(kernels.shape, order, dtype=weight.dtype, device=weight.device).copy_(kernels)
    for tap, kernel in enumerate(kernels.unbind(2)):
        row, column = divmod(tap, size)
        yield kernel.unsqueeze(2).to(_sum_dtype(x)), slice(row, row + height), slice(column, column + width)
