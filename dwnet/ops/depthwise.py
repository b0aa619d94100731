"""Depth-wise convolutions that ``torch.nn`` has no layer for.

Source: "Demystifying Local Vision Transformer", Han et al., ICLR 2022, arXiv 2106.04263, section 3.
"""
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
