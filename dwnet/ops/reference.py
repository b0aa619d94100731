"""The three operators in plain PyTorch: tests compare the fast forms with these.

Every operator here is differentiable and works on any device and dtype.
"""
import torch.nn.functional as F
from torch import Tensor


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolves (B, C, H, W) with one kernel for each channel, (C, 1, k, k)."""
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1])


def dynamic_depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolves (B, C, H, W) with a kernel for each image, (B, C, k, k), by joining the batch into B·C channels."""
    batch, channels, height, width = x.shape
    y = F.conv2d(
        x.reshape(1, batch * channels, height, width),
        weight.reshape(batch * channels, 1, *weight.shape[2:]),
        padding=weight.shape[-1] // 2,
        groups=batch * channels).reshape(x.shape)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def inhomogeneous_depthwise_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """Gathers the neighbourhoods of (B, C, H, W), multiplies by a kernel for each position (B, G, k, k, H, W), sums."""
    batch, channels, height, width = x.shape
    groups, size = weight.shape[1:3]
    patches = F.unfold(x, size, padding=size // 2)  # (B, C·k·k, H·W)
    patches = patches.view(batch, groups, channels // groups, size, size, height, width)
    return (patches * weight[:, :, None]).sum((3, 4)).flatten(1, 2)
