"""The token mixers: what DWNet puts in the place of local self-attention.

Source: "Demystifying Local Vision Transformer", Han et al., ICLR 2022, arXiv 2106.04263.
"""
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dwnet.ops import dynamic_depthwise_conv2d

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


SPATIAL_OPERATORS = {'static': static_depthwise_conv, 'dynamic': DynamicDepthwiseConv}


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
