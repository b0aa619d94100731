"""The token mixers, which take the place of local self-attention.

Source: "Demystifying Local Vision Transformer", Han et al., ICLR 2022, arXiv 2106.04263.
"""
import math
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dwnet.errors import not_among
from dwnet.ops import (
    depthwise_conv2d,
    dynamic_depthwise_conv2d,
    inhomogeneous_depthwise_conv2d,
    predicted_depthwise_conv2d,
)
from dwnet.registry import TOKEN_MIXERS

from .fold import Affine, fold_into_conv, norm_as_affine
from .layers import missing_to, only_computes, pad_to_multiple, put_together, take_apart

# The official dense models pad every map to whole 7×7 windows, as Swin's attention needs it.
WINDOW_SIZE = 7


class TokenMixer(nn.Module):
    """Base class of the token mixers: (B, C, H, W) → (B, C, H, W). To add a mixer, register a subclass.

    For each block DWNet builds ``Mixer(dim, norm_cfg=…, kernel_size=…, **settings)``: C, the config of the norm of the
    blocks, the ``kernel_size`` of DWNet, and what ``token_mixer=dict(type=…, …)`` holds beside its type. ``forward``
    is the only method that a mixer needs; the mixer's parameters may have any names.

    Attributes:
        takes_relu: ``forward`` has an argument ``relu``, which asks the mixer to apply the ReLU that follows.
        in_swin_block: False: the block is 1×1 convolution → BN → ReLU → mixer → BN → ReLU → 1×1 convolution → BN. True:
            the block is Swin's, with a LayerNorm in front of the mixer and no norm behind it. DWNet then also passes
            ``shifted``, which is True in every second block.
        takes_dilation: The class has an argument ``dilation``, the distance between the kernel's taps. DWNet passes
            the argument in stages that keep their resolution for the sake of ``output_stride``.
    """
    takes_relu = False
    in_swin_block = False
    takes_dilation = False

    def fold(self, norm: nn.Module) -> nn.Module:
        """Folds the BatchNorm behind the mixer into the mixer's weights, for :meth:`DWNet.switch_to_deploy`.

        Returns:
            The module to put in the place of the norm: ``nn.Identity`` if the mixer took in all of the norm. The base
            class takes in nothing and returns the norm as a scale and a shift of each channel.
        """
        return Affine.of(norm)

    def predict_kernel(self, x: Tensor) -> Tensor:
        """The kernels that the mixer applies to ``x``, for ``tools/look.py kernels``.

        Returns:
            (B, C, k, k), or (B, G, k, k, H, W) if each position has its own.

        Raises:
            NotImplementedError: If the mixer has no kernels.
        """
        raise NotImplementedError(f'{type(self).__name__} has no predict_kernel')


def find_mixer(token_mixer: str | dict) -> tuple[type[TokenMixer], dict[str, Any]]:
    """The class of a token mixer, and the settings to build the mixer with.

    Args:
        token_mixer: A name in ``TOKEN_MIXERS``, or a dict whose ``type`` is such a name, the class itself, or an
            import path (``'package.module.Class'``). The rest of the dict are the settings.

    Raises:
        ValueError: If no such mixer exists, or the class is no :class:`TokenMixer`.
    """
    settings = dict(type=token_mixer) if isinstance(token_mixer, str) else dict(token_mixer)
    kind = found = settings.pop('type', None)
    if not isinstance(kind, type):
        try:
            found = TOKEN_MIXERS.get(kind)
        except (RuntimeError, TypeError):  # a dotted name that cannot be imported, or no name
            found = None
    if found is None:
        raise ValueError(not_among('token_mixer', kind, TOKEN_MIXERS.module_dict)
                         + '; import a mixer of your own first, in a config by custom_imports')
    if not (isinstance(found, type) and issubclass(found, TokenMixer)):
        raise ValueError(f'token_mixer {kind!r} must be a subclass of dwnet.models.TokenMixer')
    return found, settings


@TOKEN_MIXERS.register_module('static')
class StaticDepthwiseConv(TokenMixer, nn.Conv2d):
    """One learned kernel for each channel, the same for all images: (B, C, H, W) → (B, C, H, W)."""
    takes_relu = takes_dilation = True

    def __init__(self, dim: int, norm_cfg: dict | None = None, kernel_size: int = 7, dilation: int = 1) -> None:
        super().__init__(dim, dim, kernel_size, padding=dilation * (kernel_size // 2), dilation=dilation, groups=dim)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        step = self.dilation[0]
        if step == 1:
            return depthwise_conv2d(x, self.weight, self.bias, relu)
        y = depthwise_conv2d(take_apart(x, step), self.weight, self.bias, relu)
        return put_together(y, step, *x.shape[-2:])

    def fold(self, norm: nn.Module) -> nn.Module:
        """Folds the BatchNorm behind the mixer into the kernel."""
        return fold_into_conv(self, norm)

    def predict_kernel(self, x: Tensor) -> Tensor:
        return self.weight.transpose(0, 1).expand(len(x), -1, -1, -1)  # (C, 1, k, k) → (B, C, k, k)


class PooledConv(nn.Conv2d):
    """A 1×1 convolution of a map of one position: (B, C, 1, 1) → (B, D, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        # a matrix product, because a convolution would copy the weights, which are larger than the map
        return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


@TOKEN_MIXERS.register_module('dynamic')
class DynamicDepthwiseConv(TokenMixer):
    """A kernel for each image and channel, predicted from the image: (B, C, H, W) → (B, C, H, W).

    Global average pooling → C/4 → BN → ReLU → k·k·C, one kernel for the whole map (homogeneous).
    The bias is learned, not predicted.
    """
    takes_relu = takes_dilation = True

    def __init__(self, dim: int, norm_cfg: dict, kernel_size: int = 7, dilation: int = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.squeeze = PooledConv(dim, dim // 4, 1, bias=False)
        self.bn = build_norm_layer(norm_cfg, dim // 4)[1]
        self.predict = PooledConv(dim // 4, dim * kernel_size**2, 1)
        self.bias = nn.Parameter(self.squeeze.weight.new_zeros(dim))

    def predict_kernel(self, x: Tensor) -> Tensor:
        """The kernels for ``x``: (B, C, H, W) → (B, C, k, k)."""
        local_norm = isinstance(self.bn, _BatchNorm) and not isinstance(self.bn, nn.SyncBatchNorm)
        if x.shape[0] == 1 and local_norm and self.bn.training:
            raise ValueError(
                'a dynamic kernel needs 2 or more images a process in training: BatchNorm after global '
                'pooling has one value an image; raise batch_size, or drop the last incomplete batch')
        hidden = F.relu(self.bn(self.squeeze(x.mean((2, 3), keepdim=True))), inplace=True)  # (B, C/4, 1, 1)
        kernel = self.predict(hidden)  # (B, k·k·C, 1, 1), channel-major
        return kernel.view(-1, x.shape[1], self.kernel_size, self.kernel_size)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        kernel, step = self.predict_kernel(x), self.dilation
        if step == 1:
            return dynamic_depthwise_conv2d(x, kernel, self.bias, relu)
        kernel = kernel.repeat_interleave(step**2, 0)  # the parts of an image have the image's kernel
        y = dynamic_depthwise_conv2d(take_apart(x, step), kernel, self.bias, relu)
        return put_together(y, step, *x.shape[-2:])

    def fold(self, norm: nn.Module) -> nn.Module:
        """Folds the BatchNorms, inside and behind the mixer, into the layers that predict the kernels."""
        self.bn = fold_into_conv(self.squeeze, self.bn)
        if (affine := norm_as_affine(norm)) is None:
            return norm
        scale, shift = affine
        each_tap = scale.repeat_interleave(self.kernel_size**2)
        with torch.no_grad():
            self.predict.weight.mul_(each_tap.view(-1, 1, 1, 1))
            self.predict.bias.mul_(each_tap)  # type: ignore[union-attr]
            self.bias.mul_(scale).add_(shift)
        return nn.Identity()


@TOKEN_MIXERS.register_module('inhomogeneous')
class InhomogeneousDepthwiseConv(TokenMixer):
    """A kernel for each position and group of channels, predicted at the position: (B, C, H, W) → (B, C, H, W).

    At each position C → C/4 → BN → ReLU → k·k·G, with 32 groups in every stage: the official code uses its
    setting ``heads``, 3 to 32, as the number of channels in a group.
    """
    takes_relu = True

    def __init__(self, dim: int, norm_cfg: dict, kernel_size: int = 7) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.groups = math.gcd(dim, 32)  # fewer if 32 does not divide the channels
        self.squeeze = nn.Conv2d(dim, dim // 4, 1)
        self.bn = build_norm_layer(norm_cfg, dim // 4)[1]
        self.predict = nn.Conv2d(dim // 4, self.groups * kernel_size**2, 1)

    def predict_kernel(self, x: Tensor) -> Tensor:
        """The kernels for ``x``: (B, C, H, W) → (B, G, k, k, H, W)."""
        return self.predict(self._hidden(x)).unflatten(1, (self.groups, self.kernel_size, self.kernel_size))

    def _hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.squeeze(x)), inplace=True)  # (B, C/4, H, W)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        if only_computes(self.predict, nn.Conv2d):
            y = predicted_depthwise_conv2d(
                x, self._hidden(x), self.predict.weight, self.predict.bias,  # type: ignore[arg-type]
                self.kernel_size)
        else:
            y = inhomogeneous_depthwise_conv2d(x, self.predict_kernel(x))
        return F.relu(y, inplace=True) if relu else y

    def fold(self, norm: nn.Module) -> nn.Module:
        """Folds the inner BatchNorm into ``squeeze``. The norm behind stays: its scales differ within a group."""
        self.bn = fold_into_conv(self.squeeze, self.bn)
        return Affine.of(norm)


class ConvMixer(nn.Module):
    """1×1 → BN → ReLU → token mixer → BN → ReLU → 1×1 → BN: (B, C, H, W) → (B, C, H, W).

    Args:
        dim: Channels C.
        spatial: The token mixer.
        norm_cfg: The norm behind each convolution.
        pad_to_window: Zero-pad right and bottom to a multiple of 7 in front of the first convolution and crop behind
            the last, as the official detection and segmentation models do. The trained weights rely on the padded
            cells, which pass through the first BN and the global pooling.
    """

    def __init__(self, dim: int, spatial: TokenMixer, norm_cfg: dict, pad_to_window: bool) -> None:
        super().__init__()
        self.pad_to_window = pad_to_window
        self.proj_in = nn.Conv2d(dim, dim, 1, bias=False)
        self.bn_in = build_norm_layer(norm_cfg, dim)[1]
        self.spatial = spatial
        self.bn_spatial = build_norm_layer(norm_cfg, dim)[1]
        self.proj_out = nn.Conv2d(dim, dim, 1, bias=False)
        self.bn_out = build_norm_layer(norm_cfg, dim)[1]

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.pad_to_window:
            x = pad_to_multiple(x, WINDOW_SIZE)
        x = F.relu(self.bn_in(self.proj_in(x)), inplace=True)
        kind = type(self.spatial)  # ask the class: a wrapper may forward attributes of the mixer inside
        takes_relu = getattr(kind, 'takes_relu', False) and only_computes(self.spatial, kind)
        if takes_relu and isinstance(self.bn_spatial, nn.Identity):
            x = self.spatial(x, relu=True)
        else:
            x = F.relu(self.bn_spatial(self.spatial(x)), inplace=True)
        return self.bn_out(self.proj_out(x))[:, :, :height, :width]

    def fold(self) -> None:
        """Folds every BatchNorm into the layer in front of the BatchNorm."""
        self.bn_in = fold_into_conv(self.proj_in, self.bn_in)
        self.bn_spatial = self.spatial.fold(self.bn_spatial)
        self.bn_out = fold_into_conv(self.proj_out, self.bn_out)


@TOKEN_MIXERS.register_module('local_mlp')
class LocalMlp(TokenMixer):
    """Local attention whose weights are learned instead of computed: (B, C, H, W) → (B, C, H, W).

    The map is cut into 7×7 windows. In each window, and for each head of 32 channels, a learned 49×49 matrix
    takes the place of softmax(q·kᵀ); the projections of values and output stay. Beyond the map's edge
    the values are zero. The official project announced this model but never released it, so there is
    no official code to compare with.

    Args:
        dim: Channels C.
        norm_cfg: Not used; Swin's block has LayerNorm.
        kernel_size: Height and width of the windows.
        shifted: Move the windows by 3, as Swin does in every second block. As in Swin, a map no larger than a window
            is not cut, even if shifted.
    """
    in_swin_block = True

    def __init__(self, dim: int, norm_cfg: dict | None = None, kernel_size: int = 7, shifted: bool = False) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.shift = kernel_size // 2 if shifted else 0
        self.heads = dim // math.gcd(dim, 32)
        self.value = nn.Linear(dim, dim)
        self.weight = nn.Parameter(self.value.weight.new_empty(self.heads, kernel_size**2, kernel_size**2))
        self.proj = nn.Linear(dim, dim)
        bound = 1 / kernel_size  # PyTorch's default for a layer with k² inputs
        nn.init.uniform_(self.weight, -bound, bound)

    def predict_kernel(self, x: Tensor) -> Tensor:
        """The weights of a window's centre, for each head: (B, heads, k, k)."""
        centre = self.weight[:, self.weight.shape[1] // 2]  # (heads, k·k)
        return centre.unflatten(-1, (self.kernel_size, self.kernel_size)).expand(len(x), -1, -1, -1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.value(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, H, W, C) inside
        # Windows shifted by 3 start with 4 empty cells and 3 cells of the map, if there are several windows each way.
        # `several` is a number, 0 or 1, because a graph of any size cannot hold a branch.
        size = self.kernel_size
        rows, columns = ((length + size - 1) // size for length in (height, width))
        several = (1 - 1 // rows) * (1 - 1 // columns)
        before = (size - self.shift) * several if self.shift else 0
        after_h, after_w = (missing_to(size, before + length) for length in (height, width))
        x = F.pad(x, (before, after_w, before, after_h))
        x = self._mix_windows(x)[:, :, before:before + height, before:before + width]
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _mix_windows(self, x: Tensor) -> Tensor:
        """Multiplies each window of (B, C, H, W), H and W multiples of the window, by the head's matrix."""
        size = self.kernel_size
        batch, channels, height, width = x.shape
        rows, columns, head_dim = height // size, width // size, channels // self.heads
        x = x.permute(0, 2, 3, 1).reshape(batch, rows, size, columns, size, self.heads, head_dim)
        # one product for each head: (heads, 49, 49) × (heads, 49, windows·C/heads)
        x = self.weight @ x.permute(5, 2, 4, 0, 1, 3, 6).reshape(self.heads, size**2, -1)
        x = x.reshape(self.heads, size, size, batch, rows, columns, head_dim)
        x = x.permute(3, 4, 1, 5, 2, 0, 6).reshape(batch, height, width, channels)
        return x.permute(0, 3, 1, 2)
