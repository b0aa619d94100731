"""Depth-wise convolutions of stride 1, zero-padded to keep the size, as torch custom operators.

``depthwise_conv2d``                a kernel for each channel, the same for all images
``dynamic_depthwise_conv2d``        a kernel for each image and channel
``inhomogeneous_depthwise_conv2d``  a kernel for each image, group of channels and position
``predicted_depthwise_conv2d``      as inhomogeneous; a 1×1 convolution predicts the kernels

The operators keep the memory format of ``x``, sum half precision in float32, follow autocast, and run under
``torch.compile`` without a graph break. ``backend`` is ``'torch'`` (PyTorch's operators, on any device),
``'triton'`` (our kernels, on CUDA) or ``'auto'``: on CUDA a trial at the first use picks the faster correct backend.
:func:`choose_backend` returns the backend, and the reason.

Source: "Demystifying Local Vision Transformer", Han et al., ICLR 2022, arXiv 2106.04263, section 3.
"""
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import torch_forms, trial
from .hardware import no_triton

BACKENDS = ('auto', 'torch', 'triton')


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False,
                     backend: str = 'auto') -> Tensor:
    """Depth-wise convolution with one kernel for each channel.

    Args:
        x: Feature maps, (B, C, H, W).
        weight: As in ``nn.Conv2d``, (C, 1, k, k), k odd.
        bias: Added to each channel, (C,).
        relu: Apply ReLU to the output; Triton's kernels fuse the ReLU.
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Returns:
        (B, C, H, W) in the memory format and the dtype of ``x``, or in autocast's dtype.

    Raises:
        ValueError: If the shapes do not fit together or the backend cannot run here.
    """
    channels, size = x.shape[1], weight.shape[-1]
    if weight.shape != (channels, 1, size, size) or size % 2 == 0:
        raise ValueError(f'weight must be (C, 1, k, k) = ({channels}, 1, k, k) with an odd k, '
                         f'got {tuple(weight.shape)}')
    _check_bias(bias, channels)
    x, weight, bias = autocast_to(x, weight, bias)
    backend = choose_backend(x, backend)[0]
    if backend == 'torch':
        if torch_forms.trains_on_small_maps(x, weight):
            y = torch_forms.DepthwiseOfSmallMaps.apply(x, weight, bias)
        else:
            y = torch.nn.functional.conv2d(x, weight, bias, padding=size // 2, groups=channels)
        return torch.nn.functional.relu(y, inplace=True) if relu else y
    return _depthwise(x, weight.flatten(0, 1)[None], bias, relu, backend)


def dynamic_depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False,
                             backend: str = 'auto') -> Tensor:
    """Depth-wise convolution with different kernels for each image.

    Args:
        x: Feature maps, (B, C, H, W).
        weight: One kernel for each image and channel, (B, C, k, k), k odd.
        bias: Added to each channel, (C,), the same for all images.
        relu: As in :func:`depthwise_conv2d`.
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Returns:
        (B, C, H, W) in the memory format and the dtype of ``x``, or in autocast's dtype.

    Raises:
        ValueError: If the shapes do not fit together or the backend cannot run here.
    """
    batch, channels = x.shape[:2]
    size = weight.shape[-1]
    if weight.shape != (batch, channels, size, size) or size % 2 == 0:
        raise ValueError(f'weight must be (B, C, k, k) = ({batch}, {channels}, k, k) with an odd k, '
                         f'got {tuple(weight.shape)}')
    _check_bias(bias, channels)
    x, weight, bias = autocast_to(x, weight, bias)
    if torch_forms.recorded_for_others() and not torch_forms.OPERATORS_KEPT.get():
        y = torch_forms.as_one_image(x, weight, bias)
        return torch.nn.functional.relu(y) if relu else y
    return _depthwise(x, weight, bias, relu, choose_backend(x, backend)[0])


def inhomogeneous_depthwise_conv2d(x: Tensor, weight: Tensor, backend: str = 'auto') -> Tensor:
    """Depth-wise convolution with different kernels for each position.

    ``y[b, c, i, j] = Σ weight[b, g(c), u, v, i, j] · x[b, c, i + u - k//2, j + v - k//2]``, zero outside
    the map; neighbouring channels share a kernel, ``g(c) = c // (C/G)``.

    Args:
        x: Feature maps, (B, C, H, W).
        weight: One kernel for each image, group and position, (B, G, k, k, H, W), k odd, C a multiple of G.
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Returns:
        (B, C, H, W) in the memory format and the dtype of ``x``, or in autocast's dtype.

    Raises:
        ValueError: If the shapes do not fit together or the backend cannot run here.
    """
    batch, channels, height, width = x.shape
    groups, size = weight.shape[1:3] if weight.dim() == 6 else (0, 0)
    if (groups == 0 or weight.shape != (batch, groups, size, size, height, width) or size % 2 == 0
            or channels % groups):
        raise ValueError(f'weight must be (B, G, k, k, H, W) = ({batch}, G, k, k, {height}, {width}) with an odd k '
                         f'and a G that divides {channels}, got {tuple(weight.shape)}')
    x, weight, _ = autocast_to(x, weight, None)
    if torch_forms.recorded_for_others():
        return torch_forms.sum_of_taps(x, weight)
    return _inhomogeneous(x, weight, choose_backend(x, backend)[0])


def predicted_depthwise_conv2d(x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, size: int,
                               backend: str = 'auto') -> Tensor:
    """``inhomogeneous_depthwise_conv2d`` whose kernels are a 1×1 convolution of ``hidden``.

    The 1×1 convolution writes the kernels in the memory order in which the operator reads them. Inference on a CPU
    works on a part of the map at a time, because the kernels are many times as large as the map.

    Args:
        x: Feature maps, (B, C, H, W).
        hidden: Input of the 1×1 convolution, (B, D, H, W).
        weight: (G·k·k, D, 1, 1), C a multiple of G.
        bias: (G·k·k,).
        size: k, odd.
        backend: ``'auto'``, ``'torch'`` or ``'triton'``.

    Returns:
        (B, C, H, W) in the memory format and the dtype of ``x``, or in autocast's dtype.

    Raises:
        ValueError: If the shapes do not fit together or the backend cannot run here.
    """
    batch, channels, height, width = x.shape
    groups = len(weight) // size**2
    if (size % 2 == 0 or groups == 0 or len(weight) != groups * size**2 or channels % groups
            or hidden.shape != (batch, weight.shape[1], height, width)):
        raise ValueError(f'weight must be (G·k·k, D, 1, 1) with k = {size} odd and a G that divides {channels}, and '
                         f'hidden ({batch}, D, {height}, {width}), got {tuple(weight.shape)} and {tuple(hidden.shape)}')
    _check_bias(bias, len(weight))
    x, weight, _ = autocast_to(x, weight, None)
    hidden, bias = hidden.to(x.dtype), bias.to(x.dtype)
    if torch_forms.recorded_for_others():
        kernels = torch.nn.functional.conv2d(hidden, weight, bias).view(batch, groups, size, size, height, width)
        return torch_forms.sum_of_taps(x, kernels)
    backend = choose_backend(x, backend)[0]
    if backend == 'torch' and x.device.type == 'cpu' and not torch.is_grad_enabled():
        return _predicted(x, hidden, weight, bias, size)
    rows_innermost = backend == 'torch' and x.is_cpu and torch_forms.rows_run_innermost(width)
    kernels = torch_forms.predict_in_order(hidden, weight, bias, groups, size, rows_innermost)
    return _inhomogeneous(x, kernels, backend)


def choose_backend(x: Tensor, backend: str = 'auto') -> tuple[str, str]:
    """The backend that runs for ``x``, and the reason.

    Returns:
        ``'torch'`` or ``'triton'``; or ``'auto'`` where both can run: a trial at the first use of each operator, dtype,
        memory format and class of shapes decides, see :func:`verdicts`. ``'known'`` while a graph is compiled: earlier
        trials decide; without a trial, PyTorch's operator runs.

    Raises:
        ValueError: If the backend is unknown or cannot run here.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    if backend == 'torch':
        return 'torch', 'asked for'
    if torch_forms.recorded_for_others():
        return 'torch', 'a graph is recorded for other programs'
    reason = no_triton(x.device.type, x.device.index, x.dtype)
    if backend == 'triton':
        if reason:
            raise ValueError(f"backend='triton' cannot run here: {reason}")
        return 'triton', 'asked for'
    if reason:
        return 'torch', reason
    if torch.compiler.is_compiling():
        return 'known', 'a compiled graph tries nothing'
    return 'auto', 'Triton can run, and is tried at the first use of each operator'


def _settle(operator: Callable, *inputs: Tensor | bool | int | None, backend: str) -> str:
    """``'torch'`` or ``'triton'``, by the trials if ``backend`` leaves the choice open."""
    return backend if backend in ('torch', 'triton') else trial.choose(operator, *inputs, may_try=backend == 'auto')


def _check_bias(bias: Tensor | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels, ):
        raise ValueError(f'bias must have one value a channel, ({channels},), got {tuple(bias.shape)}')


def autocast_to(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Casts all to autocast's dtype, or to that of ``x`` without autocast or in float64, as PyTorch's operators do."""
    device = x.device.type
    autocast = x.dtype != torch.float64 and device in ('cpu', 'cuda') and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


@torch.library.custom_op('dwnet::depthwise_conv2d', mutates_args=())
def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, backend: str) -> Tensor:
    """``weight`` is (N, C, k, k), with N = 1 for static and N = B for dynamic kernels."""
    backend = _settle(torch.ops.dwnet.depthwise_conv2d, x, weight, bias, relu, backend=backend)
    if backend == 'triton':
        from . import triton_kernels
        return triton_kernels.depthwise_forward(x, weight, None if bias is None else bias.contiguous(), relu)
    y = torch_forms.depthwise_forward(x, weight, bias)
    return y.relu_() if relu else y


@_depthwise.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, backend: str) -> Tensor:
    return torch_forms.empty_like(x)


@torch.library.custom_op('dwnet::depthwise_conv2d_backward', mutates_args=())
def _depthwise_backward(grad_y: Tensor, x: Tensor, weight: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    grad_y = grad_y.contiguous(memory_format=torch_forms.memory_format_of(x))
    backend = _settle(torch.ops.dwnet.depthwise_conv2d_backward, grad_y, x, weight, backend=backend)
    if backend == 'triton':
        from . import triton_kernels
        grad_weight = triton_kernels.depthwise_backward_weight(grad_y, x, weight.shape[-1], len(weight) > 1)
        return triton_kernels.depthwise_backward_input(grad_y, weight), grad_weight.to(weight.dtype)
    return torch_forms.depthwise_backward(grad_y, x, weight)


@_depthwise_backward.register_fake
def _(grad_y: Tensor, x: Tensor, weight: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return torch_forms.empty_like(x), weight.new_empty(weight.shape)


def _save_depthwise(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, bias, relu, ctx.backend = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, output if relu else None)


def _depthwise_gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, rectified = ctx.saved_tensors
    if rectified is not None:
        grad_y = grad_y * (rectified > 0)
    grad_x, grad_weight = _depthwise_backward(grad_y, x, weight, ctx.backend)
    return grad_x, grad_weight, grad_y.sum((0, 2, 3)) if ctx.has_bias else None, None, None


_depthwise.register_autograd(_depthwise_gradients, setup_context=_save_depthwise)


@torch.library.custom_op('dwnet::inhomogeneous_depthwise_conv2d', mutates_args=())
def _inhomogeneous(x: Tensor, weight: Tensor, backend: str) -> Tensor:
    backend = _settle(torch.ops.dwnet.inhomogeneous_depthwise_conv2d, x, weight, backend=backend)
    if backend == 'triton':
        from . import triton_kernels
        return triton_kernels.inhomogeneous_forward(x, weight)
    return torch_forms.inhomogeneous_forward(x, weight)


@_inhomogeneous.register_fake
def _(x: Tensor, weight: Tensor, backend: str) -> Tensor:
    return torch_forms.empty_like(x)


@torch.library.custom_op('dwnet::inhomogeneous_depthwise_conv2d_backward', mutates_args=())
def _inhomogeneous_backward(grad_y: Tensor, x: Tensor, weight: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    grad_y = grad_y.contiguous(memory_format=torch_forms.memory_format_of(x))
    backend = _settle(torch.ops.dwnet.inhomogeneous_depthwise_conv2d_backward, grad_y, x, weight, backend=backend)
    if backend == 'triton':
        from . import triton_kernels
        return (triton_kernels.inhomogeneous_backward_input(grad_y, weight),
                triton_kernels.inhomogeneous_backward_weight(grad_y, x, weight))
    return torch_forms.inhomogeneous_backward(grad_y, x, weight)


@_inhomogeneous_backward.register_fake
def _(grad_y: Tensor, x: Tensor, weight: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return torch_forms.empty_like(x), torch.empty_like(weight)


def _save_inhomogeneous(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, ctx.backend = inputs
    ctx.save_for_backward(x, weight)


def _inhomogeneous_gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    return *_inhomogeneous_backward(grad_y, *ctx.saved_tensors, ctx.backend), None


_inhomogeneous.register_autograd(_inhomogeneous_gradients, setup_context=_save_inhomogeneous)


@torch.library.custom_op('dwnet::predicted_depthwise_conv2d', mutates_args=())
def _predicted(x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    """For inference on a CPU; no gradient is defined."""
    return torch_forms.predict_and_apply(x, hidden, weight, bias, len(weight) // size**2, size)


@_predicted.register_fake
def _(x: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    return torch_forms.empty_like(x)


@register_flop_formula(torch.ops.dwnet.depthwise_conv2d)
def _(x_shape: torch.Size, weight_shape: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * prod(x_shape) * prod(weight_shape[2:])


@register_flop_formula(torch.ops.dwnet.predicted_depthwise_conv2d)
def _(x_shape: torch.Size, hidden_shape: torch.Size, weight_shape: torch.Size, bias_shape: torch.Size, size: int,
      *_: Any, **__: Any) -> int:
    return 2 * prod(x_shape) * size**2 + 2 * hidden_shape[0] * prod(hidden_shape[2:]) * prod(weight_shape)


@register_flop_formula(torch.ops.dwnet.inhomogeneous_depthwise_conv2d)
def _(x_shape: torch.Size, weight_shape: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * prod(x_shape) * prod(weight_shape[2:4])
