"""DWNet in the place of another backbone of a config.

The old backbone and each neck are run to see the shapes of their outputs. Each ``in_channels`` behind them that equals
the old channels is set to DWNet's channels, so no list of models is needed. The toolbox says how many channels a part
takes if that is another number, as in mmyolo, whose parts multiply ``in_channels`` by their ``widen_factor``.
"""
import copy
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from dwnet.errors import UserError, one_line
from dwnet.models import DWNet, ExtraMaps
from dwnet.registry import lineage, type_name

from . import TOOLBOXES, known_toolbox_of
from .base import Toolbox, as_list

_STAGES = {4: 0, 8: 1, 16: 2, 32: 3}  # stride → stage
_POOLING = ['mmpretrain.GlobalAveragePooling']
_NOT_BEHIND = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg')


def swap_backbone(cfg: Config, **arguments) -> Config:
    """A copy of a config with DWNet as the backbone, and with ``in_channels`` that fit behind the backbone.

    The old backbone's pretrained weights are left out, and so are mmdet's and mmseg's layer-wise learning-rate decay
    and the learning rates of mmaction's TSM, which refuse DWNet. A detector keeps the strides of its feature maps; the
    neck :class:`~dwnet.models.ExtraMaps` adds those above 32. If the head is the last stage of a ResNet (C4), a 1×1
    convolution brings DWNet's map to the channels of that stage. A classifier or segmentor with n maps gets the last n
    maps of DWNet, since its heads take maps of any size. So does a pose estimator, whose head gets deconvolutions if
    the old maps were larger. The neck that makes a pyramid of the maps of a plain vision transformer is left out. If
    the old backbone gives a vector, DWNet's map is pooled; if that vector is the scores of the classes, as VGG's, a
    linear head follows.

    Args:
        cfg: A config of a toolbox of :data:`dwnet.toolboxes.TOOLBOXES` whose model has a ``backbone``. It stays as it
            is.
        arguments: Of :class:`dwnet.DWNet`.

    Returns:
        The new config.

    Raises:
        UserError: If DWNet does not fit: the model has no ``backbone``; the backbone gives no feature maps, strides
            below 4, or, in a segmentor, more than four maps; or no part behind the backbone names its channels.

    Example:
        >>> from mmengine.hub import get_config
        >>> from dwnet.apis import swap_backbone
        >>> cfg = swap_backbone(get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'), arch='tiny')
        >>> cfg.model.neck.in_channels
        [96, 192, 384, 768]
    """
    cfg = copy.deepcopy(cfg)
    model = cfg.get('model', {})
    if not isinstance(model.get('backbone'), dict):
        raise UserError(f"model.backbone is missing: a {type_name(model)} keeps its network elsewhere "
                        f"({', '.join(key for key in model if key != 'type')}); swap it there by hand")
    toolbox = known_toolbox_of(cfg, 'swap_backbone')
    toolbox.load()
    with DefaultScope.overwrite_default_scope(toolbox.name), torch.random.fork_rng(devices=[]):
        _swap(model, toolbox, arguments)
    _leave_out_layer_decay(cfg, toolbox.name)
    return cfg


def _swap(model: ConfigDict, toolbox: Toolbox, arguments: dict) -> None:
    name = f'backbone {type_name(model.backbone)}'
    side = model.backbone.get('img_size', toolbox.trial_size)
    image = torch.rand(toolbox.trial_number, 3, *((side, side) if isinstance(side, int) else side), device='meta')
    from_scratch = {key: value for key, value in model.backbone.items() if key not in ('pretrained', 'init_cfg')}
    old = _run(from_scratch, image, name)
    necks = as_list(model.get('neck') or [])

    if all(x.ndim == 2 for x in old) and not necks and toolbox.task == 'classification':  # pooled in the backbone
        necks = model.neck = [ConfigDict(type='GlobalAveragePooling')]
        old = [x[:, :, None, None] for x in old]
        if lineage(model.head, MODELS)[:1] == ['mmpretrain.ClsHead']:  # has no weights: the backbone scored the classes
            model.head.update(type='LinearClsHead', num_classes=old[-1].shape[1], in_channels=old[-1].shape[1])
    if all(x.ndim == 3 for x in old) and [lineage(neck, MODELS)[:1] for neck in necks] == [_POOLING]:
        necks[0].dim = 2  # pools maps in the place of sequences, (B, C, N), of MLP-Mixer
        old = [x[..., None] for x in old]
    if any(x.ndim != 4 for x in old):
        raise UserError(f"the {name} gives {', '.join(str(tuple(x.shape)) for x in old)} and no feature maps, which "
                        'are all that DWNet has')
    if len(old) > 1 and necks and len({x.shape for x in old}) == 1:  # a plain transformer
        old = _run(necks, tuple(old), f'neck {type_name(necks[0])}')
        necks, model.neck = [], None

    stages, extra = _stages(old, image, name, toolbox)
    arguments.setdefault('out_indices', stages)
    model.backbone = ConfigDict(type=f'dwnet.{DWNet.__name__}', **arguments)
    model.pop('pretrained', None)
    new = _run(model.backbone, image, 'DWNet')
    if 'shared_head' in (model.get('roi_head') or {}):
        model.neck = ConfigDict(type='ChannelMapper', in_channels=_channels(new), out_channels=_channels(old)[-1],
                                kernel_size=1, act_cfg=None, num_outs=len(new))
        new = _run(model.neck, tuple(new), 'neck ChannelMapper')
    if extra:
        added = ConfigDict(type=f'dwnet.{ExtraMaps.__name__}', channels=new[-1].shape[1], number=extra)
        new = _run(added, tuple(new), type_name(added))
        model.neck = [added, *necks]
    if len(old) != len(new):
        raise UserError(f'out_indices must name {len(old)} stages, as the {name} gives so many maps; got {len(new)}')
    wanted, taken = [_channels(maps) for maps in (old, new)], 0
    for neck in necks:
        old_neck = copy.deepcopy(neck)
        taken += _replace_channels(neck, _channels(old), _channels(new), toolbox)
        try:
            old = _run(old_neck, tuple(old), '')
        except UserError:  # SwAV's neck takes several images, a few have operators without a meta form: no more changes
            old = new = []
            break
        new = _run(neck, tuple(new), f'neck {type_name(neck)} behind DWNet')
    if old and new and old[-1].ndim == new[-1].ndim == 4:  # else pooled, or unknown
        toolbox.fit_resolution(model, old[-1].shape[-1] / new[-1].shape[-1])
    heads = [model[key] for key in model if key not in _NOT_BEHIND]
    taken += _replace_channels(heads, _channels(old), _channels(new), toolbox)
    if wanted[0] != wanted[1] and not taken:
        raise UserError(f'nothing behind the {name} says that it takes its channels, {wanted[0]}, in whose place DWNet '
                        f'has {wanted[1]}: its head is a part of it')


def _leave_out_layer_decay(cfg: Config, scope: str | None) -> None:
    """Removes a toolbox's layer-wise decay that refuses any backbone but ConvNeXt and BEiT."""
    wrapper = cfg.get('optim_wrapper', {})
    constructor = dict(type=wrapper.get('constructor'))
    refusing = {toolbox.layer_decay for toolbox in TOOLBOXES.values()}
    if refusing.intersection(lineage(constructor, OPTIM_WRAPPER_CONSTRUCTORS, scope)):
        del wrapper.constructor
        for key in ('decay_rate', 'decay_type', 'layer_decay_rate', 'num_layers', 'fc_lr5'):
            (wrapper.get('paramwise_cfg') or {}).pop(key, None)


def _channels(maps: list[Tensor]) -> list[int]:
    return [x.shape[1] for x in maps]


class _WeightsOnMeta(TorchFunctionMode):
    """Creates weights (``torch.empty``) without memory; other tensors stay real, since constructors read them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return function(*args, **(kwargs | dict(device='meta') if function is torch.empty else kwargs))


@torch.no_grad()
def _run(part: ConfigDict | list, inputs: Tensor | tuple[Tensor, ...], name: str) -> list[Tensor]:
    """The shapes of a part's outputs in training mode, on the meta device; some parts have others in eval mode."""
    try:
        try:
            with _WeightsOnMeta():
                module = MODELS.build(copy.deepcopy(part)).to('meta')
            module.train()
            with torch.device('meta'):
                outputs = module(inputs)
        except RuntimeError as error:
            if 'meta tensors' not in str(error):
                raise
            outputs = _computed(part, inputs)  # PP-YOLOE's blocks ask for the value of a weight
    except Exception as error:  # a third party's part may raise anything
        raise UserError(f'the {name} cannot be run to see what it gives: {one_line(error)}') from error
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    if not isinstance(outputs, (list, tuple)) or not all(isinstance(x, Tensor) for x in outputs):
        raise UserError(f'the {name} does not give feature maps alone, and that is all that DWNet has')
    return list(outputs)


def _computed(part: ConfigDict | list, inputs: Tensor | tuple[Tensor, ...]) -> Any:
    """The outputs of a part for zeros of the shapes of ``inputs``, computed in memory and given on the meta device."""
    module = MODELS.build(copy.deepcopy(part))
    module.train()
    outputs = module(tree_map_only(Tensor, lambda x: torch.zeros_like(x, device='cpu'), inputs))
    return tree_map_only(Tensor, lambda x: x.to('meta'), outputs)


def _stages(old: list[Tensor], image: Tensor, name: str, toolbox: Toolbox) -> tuple[tuple[int, ...], int]:
    """The stages of DWNet that replace the old maps, and how many maps of larger strides have to be added."""
    strides = [round(image.shape[-1] / x.shape[-1]) for x in old]
    if not toolbox.keeps_strides:
        if len(old) > len(_STAGES):
            raise UserError(f'the {name} gives {len(old)} maps (strides {strides}), DWNet four, of strides 4, 8, '
                            '16, 32')
        return tuple(range(len(_STAGES)))[-len(old):], 0
    own = [stride for stride in strides if stride in _STAGES]
    extra = [64 << i for i in range(len(strides) - len(own))] if own[-1:] == [32] else []
    if strides != [*sorted(set(own)), *extra]:
        raise UserError(f'the {name} gives maps of strides {strides}, DWNet of 4, 8, 16, 32 and, by a neck behind it, '
                        'of 64 and more, each once')
    return tuple(_STAGES[stride] for stride in own), len(extra)


def _replace_channels(part, old: list[int], new: list[int], toolbox: Toolbox) -> int:
    """Sets each ``in_channels`` in a part of a config that takes these maps; returns the number of changes."""
    if old == new:
        return 0
    if isinstance(part, (list, tuple)):
        return sum(_replace_channels(item, old, new, toolbox) for item in part)
    if not isinstance(part, dict):
        return 0
    replaced = sum(_replace_channels(value, old, new, toolbox) for value in part.values())
    for key, value in part.items():
        levels = _levels(key, part, old, toolbox)
        if levels is not None:
            channels = [toolbox.channels_to_state(part, new[i]) for i in levels]
            part[key] = type(value)(channels) if isinstance(value, (list, tuple)) else channels[0]  # JPU wants tuples
            replaced += 1
            if part.get('num_convs') == 0 and part.get('channels') == value:  # FCNHead without convolutions
                part.channels = channels[0]
            passed_on = part.get('out_channels')
            # SSDNeck and YOLOv8PAFPN give maps of the channels that they take
            if isinstance(passed_on, (list, tuple)) and list(passed_on[:len(levels)]) == as_list(value):
                part.out_channels = type(passed_on)([*channels, *passed_on[len(levels):]])
    return replaced


def _levels(key: str, part: ConfigDict, old: list[int], toolbox: Toolbox) -> list[int] | None:
    """The indices of the maps whose channels the setting ``key`` states; None if ``key`` states no map's channels."""
    # a RoI extractor's out_channels equal the channels of the maps
    if not key.endswith('in_channels') and not (key == 'out_channels' and 'roi_layer' in part):
        return None
    is_list = isinstance(part[key], (list, tuple))
    values = [toolbox.channels_taken(part, stated) for stated in as_list(part[key])]
    levels = as_list(part.get('in_index', list(range(len(old))) if is_list else -1))
    if all(-len(old) <= i < len(old) for i in levels) and [old[i] for i in levels] == values:
        return levels
    # by value, if each value is unique: YOLOv3 takes the maps last to first; DeepLabV3+ has a c1_in_channels.
    # What takes two maps of one width, as RTMO's projector, stands behind others and takes their maps.
    unique = len(set(values)) == len(values) and all(old.count(value) == 1 for value in values)
    if unique and (is_list or key != 'in_channels'):
        return [old.index(value) for value in values]
    return None
