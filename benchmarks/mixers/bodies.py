"""What DWNet is compared with: other token mixers, and bodies of the same depths, widths, stem, patch merging and MLP.

``fashion_mnist.py`` imports this, so that ``model.backbone`` finds them by their names.
"""
import math
from collections.abc import Callable

from mmengine.registry import MODELS
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn

from dwnet import TOKEN_MIXERS, DWNet
from dwnet.models import TokenMixer
from dwnet.models.fold import fold_into_conv
from dwnet.models.mixers import WINDOW_SIZE, LocalMlp, StaticDepthwiseConv
from dwnet.ops import depthwise_conv2d


class WindowAttention(nn.Module):
    """Swin's local attention, as mmpretrain has it: (B, C, H, W) → (B, C, H, W).

    Args:
        dim: Channels C; heads of 32, or of the most that divide both, as in the local MLP.
        size: Height and width of the map. One no larger than a window is not cut, as in Swin.
        shifted: Move the windows by 3.
    """

    def __init__(self, dim: int, size: int, shifted: bool) -> None:
        super().__init__()
        window = min(size, WINDOW_SIZE)
        self.attention = ShiftWindowMSA(
            dim, dim // math.gcd(dim, 32), window, shift_size=window // 2 if shifted and size > window else 0)
        # mmpretrain's own, which mmengine's initialisation of a whole model does not reach
        nn.init.trunc_normal_(self.attention.w_msa.relative_position_bias_table, std=.02)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (B, H·W, C)
        return self.attention(tokens, x.shape[-2:]).transpose(1, 2).unflatten(2, x.shape[-2:])


@TOKEN_MIXERS.register_module('projected')
class ProjectedConv(TokenMixer):
    """A static depth-wise convolution between the projections of the local MLP: (B, C, H, W) → (B, C, H, W)."""
    in_swin_block = True

    def __init__(self, dim: int, norm_cfg: dict, kernel_size: int = 7, shifted: bool = False) -> None:
        super().__init__()
        self.value = nn.Linear(dim, dim)
        self.spatial = StaticDepthwiseConv(dim, norm_cfg, kernel_size)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.spatial(self.value(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))  # (B, H, W, C) inside
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# What makes each from its channels, the size of its map, and whether its windows are shifted.
IN_SWIN_BLOCK: dict[str, Callable[[int, int, bool], nn.Module]] = {
    'attention': WindowAttention,
    'local_mlp': lambda dim, size, shifted: LocalMlp(dim, kernel_size=min(size, WINDOW_SIZE), shifted=shifted),
}


@MODELS.register_module()
class SwinBlockBody(DWNet):
    """DWNet's body of Swin's residual blocks, with windows that are no larger than the maps, as in Swin.

    Args:
        mixer: One of ``IN_SWIN_BLOCK``.
        image_size: Height and width of the images, which windows that are as large as a map depend on.
        kwargs: As for :class:`dwnet.DWNet`.
    """

    def __init__(self, mixer: str, image_size: int, **kwargs) -> None:
        super().__init__(token_mixer='local_mlp', **kwargs)
        for i, (dim, stage) in enumerate(zip(self.channels, self.stages)):
            size = math.ceil(image_size / 2**(i + 2))
            for j, block in enumerate(stage.blocks):
                block.mixer = IN_SWIN_BLOCK[mixer](dim, size, j % 2 == 1)


@TOKEN_MIXERS.register_module('shared')
class SharedDepthwiseConv(TokenMixer):
    """A depth-wise convolution whose kernels are shared by neighbouring channels: (B, C, H, W) → (B, C, H, W).

    Args:
        dim: Channels C.
        norm_cfg: Not used.
        kernel_size: Height and width of the kernels, odd.
        share: Channels that have a kernel in common; 1 is the usual convolution, 0 one kernel for all.
    """
    takes_relu = True

    def __init__(self, dim: int, norm_cfg: dict | None = None, kernel_size: int = 7, share: int = 1) -> None:
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
