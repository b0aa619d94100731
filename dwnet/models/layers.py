"""The parts around the token mixer: patch embedding, patch merging, MLP, and activation checkpointing.

Feature maps are (B, C, H, W) everywhere, in channels-last memory format, so the permutes to
(B, H, W, C) for LayerNorm and Linear copy nothing.
"""
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from packaging.version import Version
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)
from torch.utils.checkpoint import checkpoint

_ALL_MODULES_HOOKS = (
    _global_forward_hooks, _global_forward_pre_hooks, _global_backward_hooks, _global_backward_pre_hooks)

# Graphs compiled by PyTorch before 2.11 (seen with 2.6) update BatchNorm's statistics twice in a recomputed block.
TWICE_IN_GRAPHS = Version(torch.__version__) < Version('2.11')


def missing_to(multiple: int, length: int) -> int:
    """Padding needed to bring ``length`` to the next multiple.

    Not ``-length % multiple``: for dynamic sizes PyTorch's compiler cannot check the remainder of a negative number.
    """
    return (length + multiple - 1) // multiple * multiple - length


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pads (B, C, H, W) right and bottom until H and W are multiples of ``multiple``."""
    height, width = x.shape[-2:]
    pad_h, pad_w = missing_to(multiple, height), missing_to(multiple, width)
    # no branch in a graph of any size: each remainder would compile another graph
    recorded = torch.compiler.is_compiling()
    return F.pad(x, (0, pad_w, 0, pad_h)) if recorded or pad_h or pad_w else x


def take_apart(x: Tensor, step: int) -> Tensor:
    """Every ``step``-th row and column: (B, C, H, W) → (B·step², C, ⌈H/step⌉, ⌈W/step⌉), zero-padded at the end.

    A convolution of these maps is a convolution of ``x`` whose taps are ``step`` positions apart, by any operator.
    """
    x = pad_to_multiple(x, step).unflatten(3, (-1, step)).unflatten(2, (-1, step))  # (B, C, H/step, step, W/step, step)
    return x.permute(0, 3, 5, 1, 2, 4).flatten(0, 2).contiguous(memory_format=torch.channels_last)


def put_together(x: Tensor, step: int, height: int, width: int) -> Tensor:
    """Undoes :func:`take_apart`: (B·step², C, ⌈H/step⌉, ⌈W/step⌉) → (B, C, H, W)."""
    x = x.unflatten(0, (-1, step, step)).permute(0, 3, 4, 1, 5, 2)  # (B, C, H/step, step, W/step, step)
    x = x.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
    return x.contiguous(memory_format=torch.channels_last)


def apply_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalises the channels of (B, C, H, W) with LayerNorm or a norm for images."""
    if isinstance(norm, nn.LayerNorm):
        return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, H, W, C) inside
    return norm(x)


def only_computes(module: nn.Module, *kinds: type) -> bool:
    """Whether calling the module runs the ``forward`` of one of ``kinds`` and nothing else.

    Only then may an operator use the module's weights, or fuse a ReLU, without calling the module: hooks,
    parametrizations, and the wrappers of LoRA and quantisation have to see the module's input and output.
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks,
             *_ALL_MODULES_HOOKS)
    return (type(module) in kinds and 'forward' not in vars(module) and not any(hooks)
            and all(type(p) is nn.Parameter for p in module.parameters()))


def as_convolutions(model: nn.Module) -> None:
    """Lets a model's MLPs, mergings and patch embedding compute by convolutions alone, in place; same outputs.

    For exported files: in int8 the runtimes fuse bias, GELU and rounding into convolutions, and not into products. They
    are slow at copying the neighbours that a merging concatenates, and at changing the layout for a LayerNorm.
    """
    for module in model.modules():
        if isinstance(module, PatchEmbed):
            parts = only_computes(module.proj, nn.Conv2d), only_computes(module.norm, nn.LayerNorm)
            module.convolutions = all(parts)
        elif isinstance(module, PatchMerging):
            parts = only_computes(module.reduction, nn.Linear), only_computes(module.norm, nn.LayerNorm)
            module.convolutions = all(parts)
        elif isinstance(module, Mlp):
            module.convolutions = only_computes(module.fc1, nn.Linear) and only_computes(module.fc2, nn.Linear)


def pointwise(linear: nn.Linear, x: Tensor) -> Tensor:
    """A Linear layer at each position, as a 1×1 convolution: (B, C, H, W) → (B, D, H, W)."""
    return F.conv2d(x, linear.weight[:, :, None, None], linear.bias)


class PatchEmbed(nn.Module):
    """Cuts the image into 4×4 patches: (B, 3, H, W) → (B, C, ⌈H/4⌉, ⌈W/4⌉)."""

    def __init__(self, in_channels: int, dim: int, patch_size: int = 4) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.convolutions = False
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, self.patch_size).contiguous(memory_format=torch.channels_last)
        return self._as_convolution(x) if self.convolutions else apply_norm(self.norm, self.proj(x))

    def _as_convolution(self, x: Tensor) -> Tensor:
        """The same without a change of layout: weights whose mean over the channels C is 0 subtract the mean."""
        weight, bias = self.proj.weight, self.proj.bias
        y = F.conv2d(x, weight - weight.mean(0), None if bias is None else bias - bias.mean(), self.patch_size)
        deviation = (y.square().mean(1, keepdim=True) + self.norm.eps).sqrt()  # (B, 1, H/4, W/4)
        return y / deviation * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]


class PatchMerging(nn.Module):
    """Halves the resolution and doubles the width: (B, C, H, W) → (B, 2C, ⌈H/2⌉, ⌈W/2⌉).

    The four neighbours are concatenated in the order of Swin's own code; mmpretrain's and mmdet's
    PatchMerging interleave the channels instead, so their weights are not interchangeable.

    Args:
        dim: Channels C.
        dilation: 0 halves the resolution. A larger number keeps the resolution, (B, C, H, W) → (B, 2C, H, W), and
            merges every position with its neighbours this far apart, as a stage of ``output_stride`` needs it.
    """

    def __init__(self, dim: int, dilation: int = 0) -> None:
        super().__init__()
        self.dilation = dilation
        self.convolutions = False
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, self.dilation, 0, self.dilation)) if self.dilation else pad_to_multiple(x, 2)
        if self.convolutions:
            return self._as_convolution(x)
        x = torch.cat(self._neighbours(x.permute(0, 2, 3, 1), rows=1), dim=-1)  # (B, H/2, W/2, 4C)
        return self.reduction(self.norm(x)).permute(0, 3, 1, 2)  # (B, 2C, H/2, W/2)

    def _neighbours(self, x: Tensor, rows: int) -> list[Tensor]:
        """The four that each position merges, of a padded map; ``rows`` is its dimension of rows, columns are next."""
        def along(length: int, place: int) -> slice:
            far = self.dilation
            return slice(place * far, place * far + length - far) if far else slice(place, None, 2)

        height, width = x.shape[rows:rows + 2]
        return [x[(slice(None), ) * rows + (along(height, row), along(width, column))]
                for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]

    def _as_convolution(self, x: Tensor) -> Tensor:
        """Norm and Linear layer as one 2×2 convolution, divided by the deviation of each position's neighbours.

        Weights whose sum is 0 make the subtraction of the mean needless. The variance is that within the four
        neighbours and that between their means.
        """
        weight = self.reduction.weight * self.norm.weight  # (2C, 4C)
        weight = weight - weight.mean(1, keepdim=True)
        weight = weight.unflatten(1, (2, 2, -1)).permute(0, 3, 2, 1)  # (2C, columns, rows, C) → (2C, C, rows, columns)
        bias = (self.reduction.weight @ self.norm.bias)[:, None, None]
        mean = x.mean(1, keepdim=True)  # (B, 1, H, W)
        within = (x - mean).square().mean(1, keepdim=True)
        means, variances = (torch.stack(self._neighbours(y, rows=2)) for y in (mean, within))  # (4, B, 1, H/2, W/2)
        variance = (variances + (means - means.mean(0)).square()).mean(0)
        y = F.conv2d(x, weight, stride=1 if self.dilation else 2, dilation=self.dilation or 1)
        return y * (variance + self.norm.eps).rsqrt() + bias


class Mlp(nn.Module):
    """Two Linear layers at every position: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        self.convolutions = False
        self.fc1 = nn.Linear(dim, int(dim * ratio))
        self.act = nn.GELU()
        self.fc2 = nn.Linear(int(dim * ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.convolutions:
            return pointwise(self.fc2, self.act(pointwise(self.fc1, x)))
        x = self.fc1(x.permute(0, 2, 3, 1))  # (B, H, W, 4·C)
        recorded = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if not recorded and only_computes(self.fc1, nn.Linear) and only_computes(self.act, nn.GELU):
            x = torch.ops.aten.gelu_(x, approximate=self.act.approximate)  # allocating memory costs more than the GELU
        else:
            x = self.act(x)
        return self.fc2(x).permute(0, 3, 1, 2)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """BatchNorm still normalises by the batch, but does not update the running statistics."""
    before = [(norm, norm.momentum, counter, counter.clone()) for norm in module.modules()
              if isinstance(norm, _BatchNorm) and (counter := norm.num_batches_tracked) is not None]
    for norm, *_ in before:
        norm.momentum = 0.
    try:
        yield
    finally:
        for norm, momentum, counter, batches in before:
            norm.momentum = momentum
            counter.copy_(batches)


def recompute(block: nn.Module, *args: Any, forward: Callable | None = None, **kwargs: Any) -> Any:
    """Calls ``block(…)`` with activation checkpointing: the backward pass computes the activations again.

    The non-reentrant form gives the block gradients even if the input needs none (frozen stem, mmengine#1425).
    In training the second pass leaves BatchNorm's statistics alone, so that the batch does not count twice.
    """
    return (_recompute_outside_graphs() if TWICE_IN_GRAPHS else _recompute)(block, forward or block, *args, **kwargs)


def _recompute(block: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    if torch.compiler.is_compiling():  # a compiled graph updates the statistics once
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _statistics_kept(block) if block.training else nullcontext()

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@cache
def _recompute_outside_graphs() -> Callable:
    return torch.compiler.disable(_recompute)  # imports the compiler, so only on first use


def turn_on_recomputation(model: nn.Module, names: str | Sequence[str]) -> None:
    """Turns on activation checkpointing for the named modules, as a config's ``activation_checkpointing`` asks."""
    for name in [names] if isinstance(names, str) else names:
        module = model.get_submodule(name)
        # no closure: a copied model would call the original's module
        module.forward = partial(_recomputed, module, module.forward)


def _recomputed(module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return recompute(module, *args, forward=forward, **kwargs)
