"""DWNet: Swin's hierarchy with depth-wise convolution instead of local attention.

Paper: "Demystifying Local Vision Transformer: Sparse Connectivity, Weight Sharing, and Dynamic
Weight", Han et al., ICLR 2022, arXiv 2106.04263. Official code: Atten4Vis/DemystifyLocalViT (MIT).
"""
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS
from torch import Tensor, nn

from dwnet.errors import not_among
from dwnet.registry import BACKBONES
from dwnet.weights.loading import load_pretrained
from dwnet.weights.names import rename_on_load

from .fold import Affine, fold_into_linear
from .layers import Mlp, PatchEmbed, PatchMerging, apply_norm, recompute
from .mixers import ConvMixer, TokenMixer, find_mixer


class Block(nn.Module):
    """Token mixer and MLP, each with a residual connection: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, dim: int, mixer: TokenMixer, norm_cfg: dict, pad_to_window: bool,
                 mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.mixer = ConvMixer(dim, mixer, norm_cfg, pad_to_window)
        self.bn = build_norm_layer(norm_cfg, dim)[1]
        self.mlp = Mlp(dim, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(x))
        return x + self.drop_path(self.mlp(self.bn(x)))

    def fold(self) -> None:
        """Folds every BatchNorm into a neighbouring layer."""
        self.mixer.fold()
        self.bn = fold_into_linear(self.bn, self.mlp.fc1)


class SwinBlock(nn.Module):
    """Swin's block, with LayerNorm in front of both parts: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, dim: int, mixer: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm_mixer = nn.LayerNorm(dim)
        self.mixer = mixer
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(apply_norm(self.norm_mixer, x)))
        return x + self.drop_path(self.mlp(apply_norm(self.norm_mlp, x)))

    def fold(self) -> None:
        """Does nothing: the block has no BatchNorm."""


class Stage(nn.Module):
    """Blocks of one resolution and width; every stage but the first starts with a patch merging.

    With a ``dilation`` above 1 the merging keeps the resolution, and the kernels' taps are ``dilation`` positions
    apart: they meet the positions that they would meet after a halving.
    """

    def __init__(self, dim: int, downsample: bool, dilation: int, drop_paths: Sequence[float], with_cp: bool,
                 token_mixer: str | dict, kernel_size: int, norm_cfg: dict, pad_to_window: bool,
                 mlp_ratio: float) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.downsample = PatchMerging(dim // 2, dilation // 2) if downsample else None
        mixer_class, settings = find_mixer(token_mixer)
        if dilation > 1:
            if not mixer_class.takes_dilation or pad_to_window:
                raise ValueError('an output_stride below 32 needs kernels that can be dilated (token_mixer static or '
                                 f'dynamic) and pad_to_window=False, got {token_mixer!r} and {pad_to_window}')
            settings['dilation'] = dilation
        mixer = partial(mixer_class, dim, norm_cfg=norm_cfg, kernel_size=kernel_size, **settings)
        blocks: Iterator[nn.Module]
        if mixer_class.in_swin_block:  # every second block's windows are shifted
            blocks = (SwinBlock(dim, mixer(shifted=i % 2 == 1), mlp_ratio, rate) for i, rate in enumerate(drop_paths))
        else:
            blocks = (Block(dim, mixer(), norm_cfg, pad_to_window, mlp_ratio, rate) for rate in drop_paths)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        for block in self.blocks:
            x = recompute(block, x) if self.with_cp and torch.is_grad_enabled() else block(x)
        return x


class DWNet(BaseModule):
    """The backbone, for classification, detection and segmentation.

    Maps (B, 3, H, W) of any H and W to a tuple of feature maps, one for each of ``out_indices``:
    stage i gives (B, 2ⁱ·C, ⌈H/2ⁱ⁺²⌉, ⌈W/2ⁱ⁺²⌉), strides 4, 8, 16, 32, or up to ``output_stride``.

    Args:
        arch: ``'tiny'``, ``'base'``, or a dict with ``embed_dims`` (width of the first stage) and
            ``depths`` (blocks in each of the four stages).
        token_mixer: ``'static'`` (one learned kernel), ``'dynamic'`` (a kernel for each image),
            ``'inhomogeneous'`` (a kernel for each position), ``'local_mlp'`` (learned 49×49 matrices in
            7×7 windows, the static form of local attention), or another name in ``dwnet.TOKEN_MIXERS``. A dict gives
            settings: ``dict(type='mine', …)``. To add a mixer, see :class:`dwnet.models.TokenMixer`.
        in_channels: Channels of the image.
        mlp_ratio: Hidden width of the MLP, relative to its input.
        out_indices: Stages whose maps are returned, 0 to 3, or -4 to -1; one int or a sequence of ints. A classifier
            uses the last map alone and needs ``out_indices=3``: with more, the norms of the unused maps get no
            gradient, and distributed training stops at parameters without a gradient.
        out_norm_cfg: Norm of each returned map, or None. The official classifiers use LN, the
            official detectors and segmentors BN (SyncBN in training).
        pad_to_window: Pad the maps in each mixer to multiples of 7, whatever the kernel size, as in the training of
            the official detectors and segmentors; see :class:`dwnet.models.mixers.ConvMixer`. Images of 224×224
            have no other maps, so they are not padded. 'local_mlp' ignores the argument.
        norm_cfg: Norm inside the blocks; 'local_mlp' always has LayerNorm, as Swin.
        drop_path_rate: Stochastic depth of the last block; the rate grows linearly from 0 at the first block.
        frozen_stages: -1 freezes nothing, 0 the patch embedding, n also the first n stages and the norms of their
            returned maps, as ResNet does in all toolboxes. Frozen modules stay in eval mode.
        with_cp: Recompute the blocks' activations in the backward pass to save memory.
        deploy: Build the network as :meth:`switch_to_deploy` leaves it, for weights saved after that call.
        kernel_size: Height and width of the mixer's kernels, or of the windows of 'local_mlp'; odd.
        output_stride: 32, or 16 or 8 for maps of at least H/16 × W/16 or H/8 × W/8, as DeepLab's heads want them:
            the late stages keep their resolution, and their kernels are dilated. The weights are the same as for 32.
        init_cfg: As in all mmengine modules; by default the initialisation of the official code.
            ``dict(type='Pretrained', checkpoint=FILE_OR_URL)`` loads the backbone's weights from a classifier,
            detector or segmentor, official or ours, and fails if the weights do not fit.

    Raises:
        ValueError: If ``arch``, ``token_mixer``, ``out_indices``, ``frozen_stages`` or ``output_stride`` names
            nothing that exists, ``kernel_size`` is even, or the mixer cannot be dilated.

    Example:
        >>> import torch
        >>> from dwnet import DWNet
        >>> [tuple(x.shape) for x in DWNet('tiny').eval()(torch.rand(1, 3, 64, 96))]
        [(1, 96, 16, 24), (1, 192, 8, 12), (1, 384, 4, 6), (1, 768, 2, 3)]
    """

    arch_settings: dict[str, dict[str, Any]] = {
        'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2)),
        'base': dict(embed_dims=128, depths=(2, 2, 18, 2)),
    }

    def __init__(self,
                 arch: str | dict = 'tiny',
                 token_mixer: str | dict = 'static',
                 in_channels: int = 3,
                 mlp_ratio: float = 4.,
                 out_indices: int | Sequence[int] = (0, 1, 2, 3),
                 out_norm_cfg: dict | None = dict(type='LN'),
                 pad_to_window: bool = False,
                 norm_cfg: dict = dict(type='BN'),
                 drop_path_rate: float = 0.,
                 frozen_stages: int = -1,
                 with_cp: bool = False,
                 deploy: bool = False,
                 kernel_size: int = 7,
                 output_stride: int = 32,
                 init_cfg: dict | Sequence[dict] | None = (
                     dict(type='TruncNormal', layer='Linear', std=.02, bias=0.),
                     dict(type='Constant', layer='LayerNorm', val=1., bias=0.),
                 )) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        embed_dims, depths = self._parse_arch(arch)
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size!r}')
        if not isinstance(output_stride, int) or output_stride not in (8, 16, 32):
            raise ValueError(f'output_stride must be 8, 16 or 32, got {output_stride!r}')
        self.out_indices = self._parse_out_indices(out_indices)
        if frozen_stages not in range(-1, 5):
            raise ValueError(f'frozen_stages must be -1 (none) to 4 (all), got {frozen_stages!r}')
        self.frozen_stages = frozen_stages

        self.channels = tuple(embed_dims * 2**i for i in range(4))  # of the four maps
        drop_paths = iter(drop_path_rate * i / max(1, sum(depths) - 1) for i in range(sum(depths)))
        self.patch_embed = PatchEmbed(in_channels, embed_dims)
        # Stages behind the last output are not built: they would get no gradient.
        self.stages = nn.ModuleList(
            Stage(
                self.channels[i],
                downsample=i > 0,
                dilation=max(1, 2**(i + 2) // output_stride),
                drop_paths=[next(drop_paths) for _ in range(depths[i])],
                with_cp=with_cp,
                token_mixer=token_mixer,
                kernel_size=kernel_size,
                norm_cfg=norm_cfg,
                pad_to_window=pad_to_window,
                mlp_ratio=mlp_ratio) for i in range(max(self.out_indices) + 1))
        # build_norm_layer gives names such as 'ln3' and 'bn3'. By the names a detector that starts from a
        # classifier's weights does not load the classifier's LayerNorm into its own BatchNorm.
        self.norms = nn.ModuleDict()
        self._norm_of_stage: dict[int, str] = {}
        if out_norm_cfg is not None:
            for i in self.out_indices:
                name, norm = build_norm_layer(out_norm_cfg, self.channels[i], postfix=i)
                self.norms[name] = norm
                self._norm_of_stage[i] = name
        self._register_load_state_dict_pre_hook(rename_on_load)
        self.deploy = False
        if deploy:
            self.switch_to_deploy()
        self._freeze()

    @classmethod
    def _parse_arch(cls, arch: str | dict) -> tuple[int, Sequence[int]]:
        if isinstance(arch, str):
            if arch not in cls.arch_settings:
                raise ValueError(not_among('arch', arch, cls.arch_settings))
            arch = cls.arch_settings[arch]
        if set(arch) != {'embed_dims', 'depths'} or len(arch['depths']) != 4:
            raise ValueError(f"arch must be {', '.join(map(repr, cls.arch_settings))} or a dict with "
                             f"'embed_dims' and four 'depths', got {dict(arch)!r}")
        return arch['embed_dims'], arch['depths']

    @staticmethod
    def _parse_out_indices(out_indices: int | Sequence[int]) -> tuple[int, ...]:
        indices = (out_indices, ) if isinstance(out_indices, int) else tuple(out_indices)
        if not indices or any(i not in range(-4, 4) for i in indices):
            raise ValueError(f'out_indices must name stages 0 to 3, got {out_indices!r}')
        return tuple(i % 4 for i in indices)

    def init_weights(self) -> None:
        """Initialises by ``init_cfg``; the Runner calls this when a training starts."""
        steps = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        pretrained = [step for step in steps if step['type'] in ('Pretrained', PretrainedInit)]
        if pretrained:  # the file holds all weights, so other steps would have no effect
            load_pretrained(self, pretrained[-1]['checkpoint'])
        else:
            super().init_weights()

    def switch_to_deploy(self) -> None:
        """Folds every BatchNorm into a neighbouring layer: same outputs as in eval mode, faster, irreversible.

        For inference: the folded network has no batch statistics. mmpretrain's backbones use the same method name.
        """
        if self.deploy:
            return
        for block in chain(*self._blocks_of_stages()):
            block.fold()
        for name, norm in self.norms.items():
            self.norms[name] = Affine.of(norm)
        self.deploy = True
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.patch_embed(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        # channels-last inside, contiguous outside: some heads of the toolboxes take views of the maps
        return tuple(self._normalise(i, maps[i]).contiguous() for i in self.out_indices)

    def _normalise(self, i: int, x: Tensor) -> Tensor:
        return apply_norm(self.norms[self._norm_of_stage[i]], x) if i in self._norm_of_stage else x

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning-rate decay; the interface is that of mmpretrain's backbones.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: Prefix of the backbone's parameters in the whole model, such as ``'backbone.'``.

        Returns:
            The depth and the number of depths. The patch embedding has depth 0, the n blocks have depths 1 to n, and
            the output norms and all parameters outside the backbone have depth n + 1. A patch merging has the depth
            of the block behind it.
        """
        blocks = [len(blocks) for blocks in self._blocks_of_stages()]
        depths = sum(blocks) + 2
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix) or not name.startswith(('patch_embed.', 'stages.')):
            return depths - 1, depths
        if name.startswith('patch_embed.'):
            return 0, depths
        _, stage, part, block, *_ = name.split('.')
        return 1 + sum(blocks[:int(stage)]) + (int(block) if part == 'blocks' else 0), depths

    def _blocks_of_stages(self) -> list[list[Any]]:
        return [list(stage.get_submodule('blocks').children()) for stage in self.stages]

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        norms = [self.norms[name] for i, name in self._norm_of_stage.items() if i < self.frozen_stages]
        return [self.patch_embed, *self.stages[:self.frozen_stages], *norms]

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> 'DWNet':
        """Sets the mode; frozen stages stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self


# Registered twice: any toolbox finds `dwnet.DWNet` without an import, and plain `DWNet` after `import dwnet`.
BACKBONES.register_module(module=DWNet)
MODELS.register_module(module=DWNet)
