"""Counts parameters and multiply-adds of a model, part by part, as papers count them.

Convolutions and matrix products count, one multiply-add each (not two operations); norms, activations, sums and the
interpolation of maps, as in deformable attention, do not count. The model is on PyTorch's meta device, so nothing is
computed and any size takes seconds. Transformer heads compute with the sizes of their maps, which the meta device
cannot; they run on the CPU with zeros, and their convolutions and matrix products are counted and not computed.
"""
import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from dwnet.models import DWNet
from dwnet.toolboxes import enter_scope, toolbox_of

# The published figures run box heads on 1000 proposals and mask heads on the 100 detections that remain.
PROPOSALS, DETECTIONS = 1000, 100


@dataclass
class Part:
    """One row of the table: parameters and multiply-adds of a part of the model."""
    name: str
    parameters: int
    macs: int


def count(cfg: Config, shape: tuple[int, int] | None = None) -> list[Part]:
    """Counts the parts of a config's model for one image.

    Args:
        cfg: A config of mmpretrain, mmdet or mmseg.
        shape: Height and width of the image; by default those of the published figures.

    Returns:
        The parts in the order of the forward pass; their sums are the figures of the model.
    """
    enter_scope(cfg)
    with torch.device('meta'):
        model = MODELS.build(copy.deepcopy(cfg.model)).eval()
        image = torch.empty(1, cfg.model.backbone.get('in_channels', 3), *(shape or toolbox_of(cfg).image_shape))
        with torch.no_grad():
            parts, x = _backbone(model.backbone, image)
            if getattr(model, 'neck', None) is not None:
                parts.append(_measure('neck', model.neck, lambda: x))
                x = model.neck(x)
            transformer = _transformer(model)
            for name, call in ({} if transformer else _heads(model, x)).items():
                parts.append(_measure(name, model.get_submodule(name), call))
    training_only = []
    if getattr(model, 'auxiliary_head', None) is not None:
        training_only.append(Part('auxiliary_head (training only)', _parameters(model.auxiliary_head), 0))
    if transformer:
        rest = _parameters(model) - sum(part.parameters for part in [*parts, *training_only])
        parts.append(Part('transformer and head', rest, _on_the_cpu(model, transformer, x, tuple(image.shape[2:]))))
    return [*parts, *training_only]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _backbone(backbone: nn.Module, image: Tensor) -> tuple[list[Part], tuple[Tensor, ...]]:
    if not isinstance(backbone, DWNet):
        return [_measure('backbone', backbone, lambda: image)], backbone(image)
    parts = [_measure('patch embedding', backbone.patch_embed, lambda: image)]
    x = backbone.patch_embed(image)
    for i, stage in enumerate(backbone.stages):
        parts.append(_measure(f'stage {i + 1}', stage, lambda x=x: x))
        x = stage(x)
    return [*parts, Part('output norms', _parameters(backbone.norms), 0)], backbone(image)


def _heads(model: nn.Module, x: tuple[Tensor, ...]) -> dict[str, Callable]:
    """Name of each head → its input."""
    if hasattr(model, 'roi_head'):
        inputs: dict[str, Callable] = {'rpn_head': lambda: x} if model.with_rpn else {}
        for kind, number in (('bbox', PROPOSALS), ('mask', DETECTIONS)):
            heads = getattr(model.roi_head, f'{kind}_head', None)
            extractors = getattr(model.roi_head, f'{kind}_roi_extractor', None)
            if heads is None:
                continue
            several = isinstance(heads, nn.ModuleList)
            for i, extractor in enumerate(extractors if several else [extractors]):
                rois = torch.empty(number, extractor.out_channels, *extractor.roi_layers[0].output_size)
                inputs[f'roi_head.{kind}_head' + f'.{i}' * several] = lambda rois=rois: rois
        return inputs
    if hasattr(getattr(model, 'cls_head', None), 'fc_cls'):  # a recognizer of clips; one image is one frame
        return {'cls_head.fc_cls': lambda: x[-1].mean((2, 3))}
    names = ('head', 'bbox_head', 'decode_head', 'det_head')
    return {name: lambda: x for name in names if getattr(model, name, None) is not None}


def _transformer(model: nn.Module) -> Callable | None:
    """What computes the outputs from the maps and the images' data samples, as transformer heads do; else None."""
    if hasattr(model, 'forward_transformer'):  # DETR and those after it
        return lambda x, samples: model.bbox_head(**model.forward_transformer(x, samples))
    heads = (getattr(model, name, None) for name in ('panoptic_head', 'bbox_head', 'decode_head'))
    return next((head for head in heads if isinstance(head, nn.Module)
                 and 'batch_data_samples' in inspect.signature(head.forward).parameters), None)


class _Uncomputed(TorchDispatchMode):
    """Operators that count run on the meta device, which gives the counter its shapes, and their results are zeros."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket not in flop_registry:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map_only(Tensor, lambda x: x.to('meta'), (args, kwargs or {}))
        return tree_map_only(Tensor, lambda x: torch.zeros(x.shape, dtype=x.dtype), func(*args, **kwargs))


def _on_the_cpu(model: nn.Module, transformer: Callable, x: tuple[Tensor, ...], shape: tuple[int, int]) -> int:
    """Multiply-adds of one call of ``transformer``, a part of ``model``, moved to the CPU without its backbone."""
    model.backbone = nn.Identity()
    model.to_empty(device='cpu')
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.detach().zero_()
    sample = BaseDataElement(metainfo=dict(img_shape=shape, batch_input_shape=shape, ori_shape=shape))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not know its operator
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter, _Uncomputed():
            transformer(tuple(torch.zeros(each.shape) for each in x), [sample])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops() // 2


def _measure(name: str, module: nn.Module, make_input: Callable) -> Part:
    """Counts one call of ``module``."""
    with FlopCounterMode(display=False) as counter:
        module(make_input())
    return Part(name, _parameters(module), counter.get_total_flops() // 2)
