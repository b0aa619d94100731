"""The bodies that DWNet is compared with: other token mixers in its place, everything else the same.

``fashion_mnist.py`` imports this, so that ``model.backbone.type`` finds them.
"""
import math

from mmengine.registry import MODELS
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn

from dwnet import DWNet
from dwnet.models.fold import fold_into_conv
from dwnet.models.mixers import WINDOW_SIZE
from dwnet.ops import depthwise_conv2d


class WindowAttention(nn.Module):
    """Swin's local attention, as mmpretrain has it: (B, C, H, W) → (B, C, H, W).

    Args:
        dim: Channels C; heads of 32 channels, as in the local MLP.
        size: Height and width of the map. One no larger than a window is not cut, as in Swin.
        shifted: Move the windows by 3.
    """

    def __init__(self, dim: int, size: int, shifted: bool) -> None:
        super().__init__()
        window = min(size, WINDOW_SIZE)
        self.attention = ShiftWindowMSA(
            dim, dim // math.gcd(dim, 32), window, shift_size=window // 2 if shifted and size > window else 0)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (B, H·W, C)
        return self.attention(tokens, x.shape[-2:]).transpose(1, 2).unflatten(2, x.shape[-2:])


@MODELS.register_module()
class WindowAttentionBody(DWNet):
    """DWNet's body with local attention, in Swin's residual block, which is that of the local MLP, too.

    Args:
        image_size: Height and width of the images; attention needs to know the size of its maps.
        kwargs: As for :class:`dwnet.DWNet`.
    """

    def __init__(self, image_size: int, **kwargs) -> None:
        super().__init__(token_mixer='local_mlp', **kwargs)
        for i, (dim, stage) in enumerate(zip(self.channels, self.stages)):
            for j, block in enumerate(stage.blocks):
                block.mixer = WindowAttention(dim, math.ceil(image_size / 2**(i + 2)), shifted=j % 2 == 1)


class SharedDepthwiseConv(nn.Module):
    """A depth-wise convolution whose kernels are shared by neighbouring channels: (B, C, H, W) → (B, C, H, W).

    Args:
        dim: Channels C.
        kernel_size: Height and width of the kernels, odd.
        share: Channels that have a kernel in common; 1 is the usual convolution, 0 one kernel for all.
    """

    def __init__(self, dim: int, kernel_size: int, share: int) -> None:
        super().__init__()
        self.share = math.gcd(dim, share)
        like = nn.Conv2d(dim, dim, kernel_size, groups=dim)  # for its initialisation
        self.weight = nn.Parameter(like.weight[::self.share].detach().clone())  # (C/share, 1, k, k)
        self.bias = like.bias

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        return depthwise_conv2d(x, self.weight.repeat_interleave(self.share, 0), self.bias, relu)

    def fold(self, norm: nn.Module) -> nn.Module:
        """Takes the BatchNorm behind it into the kernels, which are no longer shared then."""
        self.weight = nn.Parameter(self.weight.detach().repeat_interleave(self.share, 0))
        self.share = 1
        return fold_into_conv(self, norm)


@MODELS.register_module()
class KernelBody(DWNet):
    """DWNet with static kernels of another size, or shared between channels.

    Args:
        kernel_size: Height and width of the kernels, odd.
        share: As for :class:`SharedDepthwiseConv`.
        kwargs: As for :class:`dwnet.DWNet`.
    """

    def __init__(self, kernel_size: int = 7, share: int = 1, **kwargs) -> None:
        super().__init__(token_mixer='static', **kwargs)
        for dim, stage in zip(self.channels, self.stages):
            for block in stage.blocks:
                block.mixer.spatial = SharedDepthwiseConv(dim, kernel_size, share)
