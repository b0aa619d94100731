"""The token mixers: what DWNet puts in the place of local self-attention.

Source: "Demystifying Local Vision Transformer", Han et al., ICLR 2022, arXiv 2106.04263.
"""
import math

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dwnet.ops import dynamic_depthwise_conv2d, inhomogeneous_depthwise_conv2d

from .layers import pad_to_multiple

KERNEL_SIZE = 7
# The official dense models pad every map to whole 7×7 windows, a left-over of Swin's attention.
WINDOW_SIZE = 7


def static_depthwise_conv(dim: int, norm_cfg: dict) -> nn.Conv2d:
    """One learned 7×7 kernel a channel, the same for all images."""
    return nn.Conv2d(dim, dim, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=dim)


class DynamicDepthwiseConv(nn.Module):
    """A 7×7 kernel a channel that is predicted from the image: (B, C, H, W) → (B, C, H, W).

    Global average pooling → C/4 → BN → ReLU → 49·C, one kernel for the whole map (homogeneous).
    The bias is learned, not predicted.
    """

    def __init__(self, dim: int, norm_cfg: dict) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(dim, dim // 4, 1, bias=False)
        self.bn = build_norm_layer(norm_cfg, dim // 4)[1]
        self.predict = nn.Conv2d(dim // 4, dim * KERNEL_SIZE**2, 1)
        self.bias = nn.Parameter(self.squeeze.weight.new_zeros(dim))

    def predict_kernel(self, x: Tensor) -> Tensor:
        """The kernels that are used for ``x``: (B, C, H, W) → (B, C, 7, 7)."""
        local_norm = isinstance(self.bn, _BatchNorm) and not isinstance(self.bn, nn.SyncBatchNorm)
        if len(x) == 1 and local_norm and self.bn.training:
            raise ValueError(
                'a dynamic kernel needs 2 or more images a process in training: BatchNorm after global '
                'pooling has one value an image; raise batch_size, or drop the last incomplete batch')
        z = F.adaptive_avg_pool2d(x, 1)  # (B, C, 1, 1)
        kernel = self.predict(F.relu(self.bn(self.squeeze(z))))  # (B, 49·C, 1, 1), channel-major
        return kernel.view(len(x), -1, KERNEL_SIZE, KERNEL_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return dynamic_depthwise_conv2d(x, self.predict_kernel(x), self.bias)


class InhomogeneousDepthwiseConv(nn.Module):
    """A 7×7 kernel a group of channels that is predicted at every position: (B, C, H, W) → (B, C, H, W).

    At each position C → C/4 → BN → ReLU → 49·G, with 32 groups in every stage: what the official
    settings call heads, 3 to 32, is used there as the number of channels in a group.
    """

    def __init__(self, dim: int, norm_cfg: dict) -> None:
        super().__init__()
        self.groups = math.gcd(dim, 32)  # fewer only in a network narrower than 32 channels
        self.squeeze = nn.Conv2d(dim, dim // 4, 1)
        self.bn = build_norm_layer(norm_cfg, dim // 4)[1]
        self.predict = nn.Conv2d(dim // 4, self.groups * KERNEL_SIZE**2, 1)

    def predict_kernel(self, x: Tensor) -> Tensor:
        """The kernels that are used for ``x``: (B, C, H, W) → (B, G, 7, 7, H, W)."""
        kernel = self.predict(F.relu(self.bn(self.squeeze(x))))  # (B, G·49, H, W): group, row, column
        return kernel.unflatten(1, (self.groups, KERNEL_SIZE, KERNEL_SIZE))

    def forward(self, x: Tensor) -> Tensor:
        return inhomogeneous_depthwise_conv2d(x, self.predict_kernel(x))


SPATIAL_OPERATORS = {
    'static': static_depthwise_conv,
    'dynamic': DynamicDepthwiseConv,
    'inhomogeneous': InhomogeneousDepthwiseConv,
}


class ConvMixer(nn.Module):
    """1×1 → BN → ReLU → spatial operator → BN → ReLU → 1×1 → BN: (B, C, H, W) → (B, C, H, W).

    Args:
        dim: Channels C.
        token_mixer: A key of ``SPATIAL_OPERATORS``.
        norm_cfg: The norm behind each convolution.
        pad_to_window: Zero-pad right and bottom to a multiple of 7 in front and crop behind, as the
            official detection and segmentation models do. The padded cells pass the first BN and the
            global pooling, so the trained weights rely on them.
    """

    def __init__(self, dim: int, token_mixer: str, norm_cfg: dict, pad_to_window: bool) -> None:
        super().__init__()
        self.pad_to_window = pad_to_window
        self.proj_in = nn.Conv2d(dim, dim, 1, bias=False)
        self.bn_in = build_norm_layer(norm_cfg, dim)[1]
        self.spatial = SPATIAL_OPERATORS[token_mixer](dim, norm_cfg)
        self.bn_spatial = build_norm_layer(norm_cfg, dim)[1]
        self.proj_out = nn.Conv2d(dim, dim, 1, bias=False)
        self.bn_out = build_norm_layer(norm_cfg, dim)[1]

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.pad_to_window:
            x = pad_to_multiple(x, WINDOW_SIZE)
        x = F.relu(self.bn_in(self.proj_in(x)))
        x = F.relu(self.bn_spatial(self.spatial(x)))
        return self.bn_out(self.proj_out(x))[:, :, :height, :width]


class LocalMlp(nn.Module):
    """Local attention whose weights are learned instead of computed: (B, C, H, W) → (B, C, H, W).

    The map is cut into 7×7 windows. In each, and for each head of 32 channels, a learned 49×49 matrix
    takes the place of softmax(q·kᵀ); the values' and the output projection stay. Beyond the map's edge
    the values are zero. The official project announced such a model and never released it, so there is
    no official code to compare with.

    Args:
        dim: Channels C.
        shifted: Move the windows by 3, as in every second block. A map no larger than a window is not
            cut, shifted or not, as in Swin.
    """

    def __init__(self, dim: int, shifted: bool) -> None:
        super().__init__()
        self.shift = WINDOW_SIZE // 2 if shifted else 0
        self.heads = dim // math.gcd(dim, 32)
        self.value = nn.Linear(dim, dim)
        self.weight = nn.Parameter(self.value.weight.new_empty(self.heads, WINDOW_SIZE**2, WINDOW_SIZE**2))
        self.proj = nn.Linear(dim, dim)
        bound = 1 / WINDOW_SIZE  # PyTorch's for a layer of 49 inputs
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.value(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, H, W, C) inside
        # a shift by 3 to the left leaves a first window of 3 cells behind 4 empty ones
        before = WINDOW_SIZE - self.shift if self.shift and min(height, width) > WINDOW_SIZE else 0
        x = pad_to_multiple(F.pad(x, (before, 0, before, 0)), WINDOW_SIZE)
        x = self._mix_windows(x)[:, :, before:before + height, before:before + width]
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _mix_windows(self, x: Tensor) -> Tensor:
        """Multiplies each window of (B, C, H, W), H and W multiples of 7, by its head's matrix."""
        size = WINDOW_SIZE
        batch, channels, height, width = x.shape
        rows, columns, head_dim = height // size, width // size, channels // self.heads
        x = x.permute(0, 2, 3, 1).reshape(batch, rows, size, columns, size, self.heads, head_dim)
        x = x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, self.heads, size**2, head_dim)  # (windows, heads, 49, C/heads)
        x = (self.weight @ x).reshape(batch, rows, columns, self.heads, size, size, head_dim)
        x = x.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, channels)  # (B, H, W, C)
        return x.permute(0, 3, 1, 2)
