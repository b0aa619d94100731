"""Exported files in the place of models: what runs a config's checkpoint also runs a file that was exported from it."""
import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS
from torch import Tensor, nn

from dwnet.errors import UserError, some
from dwnet.registry import REGISTRIES, is_a
from dwnet.toolboxes import TOOLBOXES, known_toolbox_of

from .runtimes import Exported, open_exported

# Settings of data preprocessors for what an exported file does itself
_IN_THE_FILE = ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr', 'pad_size_divisor', 'size', 'size_divisor', 'test_cfg',
                'batch_augments')


def with_exported(config: Config, file: str | os.PathLike) -> Config:
    """A copy of a config whose model runs an exported file, for the Runner and :func:`dwnet.apis.inferencer`.

    Args:
        config: The config of the model that was exported. Its model may be inside that of tiles or of test-time
            augmentation.
        file: The .onnx or .xml file.

    Raises:
        UserError: If the file is missing, or the config's toolbox is not known here. Building the model raises it if
            the file cannot be read or does not fit the config.

    Example:
        >>> from dwnet.apis import inferencer
        >>> from dwnet.deploy.exported import with_exported
        >>> from mmengine.config import Config
        >>> config = Config.fromfile('configs/classification/dwnet-nano_digits.py')
        >>> classify = inferencer(with_exported(config, 'digits.onnx'))
    """
    if not Path(file).is_file():
        raise UserError(f'{file} is missing')
    toolbox, cfg = known_toolbox_of(config, 'an exported file'), copy.deepcopy(config)
    holder = cfg.model if 'module' in cfg.model else cfg  # that of tiles or of test-time augmentation
    key = 'module' if 'module' in cfg.model else 'model'
    model = holder[key]
    settings = {'type': toolbox.preprocessor_type, **(model.get('data_preprocessor') or cfg.get('data_preprocessor')
                                                      or {})}
    for name in _IN_THE_FILE:
        settings.pop(name, None)
    if settings.get('mean') is not None:  # some preprocessors need them
        settings.update(mean=[0.] * len(settings['mean']), std=[1.] * len(settings['mean']))
    holder[key] = ConfigDict(type='dwnet.ExportedModel', file=str(file), toolbox=toolbox.name, module=model,
                             data_preprocessor=settings)
    cfg.load_from, cfg.resume, cfg.new_heads = None, False, False
    # the file has the averaged weights
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or []
                        if not is_a(hook, EMAHook, HOOKS, cfg.get('default_scope'))]
    return cfg


@REGISTRIES['model'].register_module(name='ExportedModel')
def exported_model(file: str, toolbox: str, module: ConfigDict, data_preprocessor: dict) -> nn.Module:
    """The model of :func:`with_exported`: the toolbox's, with the names and colours of the file's classes.

    Raises:
        UserError: If the file cannot be read or does not fit ``module``, the config of the model that was exported.
    """
    exported = open_exported(file)
    _check_fit(exported, TOOLBOXES[toolbox].task, module)
    model: Any = TOOLBOXES[toolbox].exported_model(_Network(exported), module, data_preprocessor)
    model.dataset_meta = dict(classes=exported.record.labels, palette=exported.record.palette)
    return model


class _Network:
    """What an exported file computes for images of a toolbox: (B, C, H, W), colours BGR, as the files have them."""

    def __init__(self, exported: Exported) -> None:
        self._run, self.channels = exported.run, exported.channels

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        images = images.float()
        outputs = self._run((images.flip(1) if self.channels == 3 else images).contiguous().cpu().numpy())
        return {name: torch.from_numpy(array).to(images.device) for name, array in outputs.items()}


def _check_fit(exported: Exported, task: str, module: ConfigDict) -> None:
    file, record = exported.path, exported.record
    if record.task == 'features':
        raise UserError(f'{file} has the feature maps of a backbone; export the model without --backbone')
    if record.task != task:
        raise UserError(f'{file} is a model for {record.task}, and the config is for {task}; name the config that the '
                        'file was exported with')
    numbers = set(_numbers_of_classes(module))
    if record.labels and numbers and len(record.labels) not in numbers:
        raise UserError(f'{file} has {len(record.labels)} classes, and the config has {some(sorted(numbers))}; name '
                        'the config that the file was exported with')


def _numbers_of_classes(part: Any) -> Iterator[int]:
    """Each ``num_classes`` in the config of a model; of panoptic heads the sum of things and stuff."""
    if isinstance(part, dict):
        if isinstance(part.get('num_classes'), int):
            yield part['num_classes']
        if 'num_things_classes' in part:
            yield part['num_things_classes'] + part.get('num_stuff_classes', 0)
        for value in part.values():
            yield from _numbers_of_classes(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _numbers_of_classes(value)
