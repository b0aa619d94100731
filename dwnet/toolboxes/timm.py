"""DWNet in timm: the same backbone with timm's head and interfaces.

Importing both dwnet and timm, in either order, registers the models:

    >>> import dwnet, timm
    >>> model = timm.create_model('dwnet_tiny', checkpoint_path='dwnet_tiny_224.pth')  # official file, as it is
    >>> maps = timm.create_model('dwnet_tiny', features_only=True)(image)  # strides 4, 8, 16, 32
"""
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from mmengine.logging import print_log
from mmengine.model import initialize
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet, feature_take_indices
from timm.models._features_fx import register_notrace_module
from torch import Tensor, nn

from dwnet.compat.timm_loading import serve_timm
from dwnet.errors import UserError
from dwnet.models import DWNet
from dwnet.models.layers import PatchEmbed, PatchMerging
from dwnet.models.mixers import ConvMixer, TokenMixer
from dwnet.weights.loading import load_backbone, load_weights, plain_weights
from dwnet.weights.names import OFFICIAL_RELEASE, convert_state_dict
from dwnet.weights.safety import checkpoint_types


class DWNetClassifier(DWNet):
    """The backbone with timm's classifier head: (B, 3, H, W) → (B, num_classes).

    Args:
        num_classes: Outputs of the head; 0 for none.
        in_chans: Channels of the image.
        global_pool: Kind of pooling, by timm's names.
        drop_rate: Dropout in front of the classifier.
        output_stride: As for :class:`dwnet.DWNet`.
        backbone_args: As for :class:`dwnet.DWNet`.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = 'avg', drop_rate: float = 0.,
                 output_stride: int = 32, **backbone_args) -> None:
        super().__init__(in_channels=in_chans, out_indices=3, output_stride=output_stride, **backbone_args)
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = self.channels[-1]
        self.feature_info = [dict(num_chs=channels, reduction=min(2**(i + 2), output_stride), module=f'stages.{i}')
                             for i, channels in enumerate(self.channels)]
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        for module in self.modules():  # torch.fx cannot trace modules that read sizes
            if isinstance(module, (PatchEmbed, PatchMerging, ConvMixer, TokenMixer)):
                register_notrace_module(type(module))
        initialize(self, self.init_cfg)

    def forward_features(self, x: Tensor) -> Tensor:
        """The normalised last map, (B, C, H/32, W/32)."""
        return super().forward(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(self, x: Tensor, indices: int | list[int] | None = None, norm: bool = False,
                              stop_early: bool = False, output_fmt: str = 'NCHW', intermediates_only: bool = False
                              ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of the stages ``indices``; ``norm`` applies the norm of the last stage, the only one."""
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        take, last = feature_take_indices(len(self.stages), indices)
        maps = []
        x = self.patch_embed(x)
        for i, stage in enumerate(self.stages[:last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in take:
                maps.append(self._normalise(i, x) if norm else x)
        return maps if intermediates_only else (self._normalise(i, x), maps)

    def prune_intermediate_layers(self, indices: int | list[int] = 1, prune_norm: bool = False,
                                  prune_head: bool = True) -> list[int]:
        """Drops the layers that the maps of ``indices`` do not need."""
        take, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[:last + 1]
        self.out_indices = (last, )
        if prune_norm or last < 3:
            self.norms = nn.ModuleDict()
            self._norm_of_stage = {}
        if prune_head or last < 3:
            self.num_features = self.head_hidden_size = self.channels[last]
            self.head = ClassifierHead(self.num_features, 0, '')
            self.num_classes = 0
        return take

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for stage in self.stages:
            stage.with_cp = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of the parameters' names, from the image to the head, for layer-wise learning rates."""
        return dict(
            stem=r'^patch_embed',
            blocks=r'^stages\.(\d+)' if coarse else [
                (r'^stages\.(\d+)\.downsample', (0, )),
                (r'^stages\.(\d+)\.blocks\.(\d+)', None),
                (r'^norms', (99999, )),
            ])

    def no_weight_decay(self) -> set[str]:
        return set()

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        """Also takes the names of official files and of this project's mmpretrain classifiers.

        Raises:
            RuntimeError: With ``strict``, if the tensors do not fit; nothing is loaded then.
        """
        if not strict or assign:
            return super().load_state_dict(state_dict, strict, assign)
        try:
            load_weights(self, plain_weights(state_dict, 'the state dict'), 'the state dict')
        except UserError as error:
            raise RuntimeError(str(error)) from error
        return nn.modules.module._IncompatibleKeys([], [])


class _Features(FeatureGetterNet):
    """The model of ``features_only=True``: a backbone without a head, into which any DWNet file loads."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        if not strict or assign or all(key.startswith('model.') for key in state_dict):
            return super().load_state_dict(state_dict, strict, assign)
        try:
            load_backbone(self.model, plain_weights(state_dict, 'the state dict'), 'the state dict')
        except UserError as error:
            raise RuntimeError(str(error)) from error
        return nn.modules.module._IncompatibleKeys([], [])


def _by_our_names(checkpoint: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Renames the weights that timm fetches for ``pretrained=True`` to the names of :class:`DWNetClassifier`.

    timm loads without ``strict`` if the head differs, so the backbone is checked here.

    Raises:
        RuntimeError: If the backbone's tensors are not exactly those of the model.
    """
    weights = {name.removeprefix('backbone.'): tensor for name, tensor in convert_state_dict(
        plain_weights(checkpoint, 'what timm has fetched')).items()}
    own, given = ({name for name in names if not name.startswith('head.')} for names in (model.state_dict(), weights))
    if own != given:
        raise RuntimeError(f"the pretrained weights are not this model's: {', '.join(sorted(own ^ given)[:20])} are "
                           'in one of the two only')
    print_log(f'loaded {len(given)} of {len(own)} backbone tensors', 'current')
    return weights


# Name → backbone arguments; the official release has weights of the first four.
MODELS = {
    f"{prefix}dwnet_{arch}": dict(arch=arch, token_mixer=token_mixer)
    for prefix, token_mixer in (('', 'static'), ('dynamic_', 'dynamic'), ('i_dynamic_', 'inhomogeneous'),
                                ('local_mlp_', 'local_mlp'))
    for arch in ('tiny', 'base')
}
default_cfgs = generate_default_cfgs({
    f'{name}.in1k': dict(
        url=f'{OFFICIAL_RELEASE}/{name}_224.pth' if args['token_mixer'] in ('static', 'dynamic') else '',
        num_classes=1000,
        input_size=(3, 224, 224),
        pool_size=(7, 7),
        crop_pct=.875,
        interpolation='bicubic',
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv='patch_embed.proj',
        classifier='head.fc',
        license='mit',
        paper_name='Demystifying Local Vision Transformer',
        paper_ids='arXiv:2106.04263',
    ) for name, args in MODELS.items()
})


def _register(name: str, backbone_args: dict[str, str]) -> None:
    def entry_point(pretrained: bool = False, **kwargs) -> nn.Module:
        with checkpoint_types() if pretrained else nullcontext():
            return build_model_with_cfg(
                DWNetClassifier,
                name,
                pretrained,
                pretrained_filter_fn=_by_our_names,
                feature_cfg=dict(out_indices=(0, 1, 2, 3), feature_cls=_Features),
                **{**backbone_args, **kwargs})

    entry_point.__name__ = name
    entry_point.__doc__ = f'DWNet with {backbone_args}.'
    register_model(entry_point)


for _name, _args in MODELS.items():
    _register(_name, _args)
serve_timm((DWNetClassifier, _Features), checkpoint_types)
