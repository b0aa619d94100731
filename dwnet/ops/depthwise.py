"""Depth-wise convolutions that ``torch.nn`` has no layer for.

Source: "Demystifying Local Vision Transformer", Han et al., ICLR 2022, arXiv 2106.04263, section 3.
"""
import torch
import torch.nn.functional as F
from torch import Tensor


def dynamic_depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Depth-wise convolution in which every image brings its own kernels.

    Stride 1; zero padding keeps the size.

    Args:
        x: Feature maps, (B, C, H, W).
        weight: One kernel for each image and channel, (B, C, k, k), k odd.
        bias: Added to each channel, (C,), the same for all images.

    Returns:
        (B, C, H, W), of the dtype of ``x``.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    batch, channels, height, width = x.shape
    size = weight.shape[-1]
    if weight.shape != (batch, channels, size, size) or size % 2 == 0:
        raise ValueError(f'weight must be (B, C, k, k) = ({batch}, {channels}, k, k) with an odd k, '
                         f'got {tuple(weight.shape)}')
    # All images become one, with a channel for each pair of image and channel: a grouped convolution.
    y = F.conv2d(
        x.reshape(1, batch * channels, height, width),
        weight.reshape(batch * channels, 1, size, size),
        padding=size // 2,
        groups=batch * channels)
    y = y.reshape(batch, channels, height, width)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def inhomogeneous_depthwise_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """Depth-wise convolution in which every position brings its own kernels.

    ``y[b, c, i, j] = Σ weight[b, g(c), u, v, i, j] · x[b, c, i + u - k//2, j + v - k//2]``, zero outside
    the map; contiguous channels share a kernel, ``g(c) = c // (C/G)``. One multiplication and addition
    of whole maps for each of the k² taps, so the neighbourhoods are never gathered.

    Args:
        x: Feature maps, (B, C, H, W).
        weight: One kernel for each image, group and position, (B, G, k, k, H, W), k odd, C a multiple of G.

    Returns:
        (B, C, H, W), of the dtype of ``x``; half precision is summed in float32.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    batch, channels, height, width = x.shape
    groups, size = weight.shape[1:3] if weight.dim() == 6 else (0, 0)
    if (groups == 0 or weight.shape != (batch, groups, size, size, height, width) or size % 2 == 0
            or channels % groups):
        raise ValueError(f'weight must be (B, G, k, k, H, W) = ({batch}, G, k, k, {height}, {width}) with an odd k '
                         f'and a G that divides {channels}, got {tuple(weight.shape)}')
    padded = F.pad(x, [size // 2] * 4).unflatten(1, (groups, -1))  # (B, G, C/G, H+k-1, W+k-1)
    sum_dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    y = torch.zeros_like(x, dtype=sum_dtype).unflatten(1, (groups, -1))  # (B, G, C/G, H, W)
    for tap, kernel in enumerate(weight.flatten(2, 3).unbind(2)):  # (B, G, H, W) each
        row, column = divmod(tap, size)
        y = y + kernel.unsqueeze(2) * padded[..., row:row + height, column:column + width]
    return y.flatten(1, 2).to(x.dtype)
