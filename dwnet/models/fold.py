"""Folds BatchNorm, in eval mode a scale and a shift of each channel, into neighbouring layers."""
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def norm_as_affine(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of a BatchNorm in eval mode, (C,) each in float64; None for another norm."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    return scale.detach(), shift.detach()


def fold_into_conv(conv: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Folds a BatchNorm behind a convolution; returns its replacement, or the norm itself if it is no BatchNorm."""
    if (affine := norm_as_affine(norm)) is None:
        return norm
    scale, shift = affine
    bias = 0. if conv.bias is None else conv.bias.detach().double()
    _set(conv, 'weight', conv.weight.detach().double() * scale.view(-1, 1, 1, 1))
    _set(conv, 'bias', bias * scale + shift)
    return nn.Identity()


def fold_into_linear(norm: nn.Module, linear: nn.Linear) -> nn.Module:
    """Folds a BatchNorm in front of a Linear layer; returns its replacement, as :func:`fold_into_conv`."""
    if (affine := norm_as_affine(norm)) is None:
        return norm
    scale, shift = affine
    weight = linear.weight.detach().double()
    _set(linear, 'bias', linear.bias.detach().double() + weight @ shift)
    _set(linear, 'weight', weight * scale)
    return nn.Identity()


def _set(module: nn.Conv2d | nn.Linear, name: str, value: Tensor) -> None:
    like = module.weight
    fmt = torch.channels_last if value.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last) \
        else torch.contiguous_format
    value = value.to(like.dtype).contiguous(memory_format=fmt)
    setattr(module, name, nn.Parameter(value, requires_grad=like.requires_grad))


class Affine(nn.Module):
    """Scale and shift of each channel, for a BatchNorm that folds into no layer: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)

    @classmethod
    def of(cls, norm: nn.Module) -> nn.Module:
        """The ``Affine`` of a BatchNorm; another norm is returned unchanged."""
        if (affine := norm_as_affine(norm)) is None:
            return norm
        dtype = next(norm.buffers()).dtype
        return cls(affine[0].to(dtype), affine[1].to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addcmul(self.shift.view(-1, 1, 1), x, self.scale.view(-1, 1, 1))
        return y.to(x.dtype)  # keeps the dtype, as BatchNorm does; autocast computes in float32 here
