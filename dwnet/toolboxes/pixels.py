"""Fits a config to images that are not 8-bit colour: reader, steps, normalisation, and the backbone's first layer.

The config keeps the toolboxes' types and arguments, so it says all that a test, an inference or an export needs. Grey
images are read by ``color_type='grayscale'``. By ``color_type='unchanged'`` :class:`dwnet.data.loading.LoadWholeImage`
reads channels and bits as they are in the file. ``pixels`` in the config tells an inference which files do not fit.
"""
import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS

from dwnet.data.loading import LoadWholeImage
from dwnet.data.pixels import Pixels
from dwnet.errors import UserError
from dwnet.registry import class_of, lineage, type_name

from . import known_toolbox_of

# Steps that only work on 8-bit colour, by the names of their classes or base classes
_FOR_COLOUR = {
    # colours at random
    'PhotoMetricDistortion', 'ColorJitter', 'ColorTransform', 'Brightness', 'Contrast', 'Sharpness', 'Solarize',
    'SolarizeAdd', 'Posterize', 'Equalize', 'AutoContrast', 'Invert', 'GaussianBlur', 'Lighting', 'YOLOXHSVRandomAug',
    'CLAHE', 'AdjustGamma', 'RandomGrayscale', 'RGB2Gray', 'Rerange', 'Corrupt',
    # policies of such steps, and other packages
    'AutoAugment', 'RandAugment', 'Albu', 'Albumentations', 'TorchVisonTransformWrapper',
    # images are filled or joined in three channels
    'RandomErasing', 'Cutout', 'CutOut', 'RandomCutOut', 'Mosaic', 'RandomMosaic', 'MixUp', 'CachedMixUp', 'Expand',
    'RandomAffine', 'RandomCenterCropPad', 'RandomTranslatePad', 'CopyPaste', 'InstaBoost'}
# What the toolboxes' inferencers put in the place of a reader, with the reader's arguments
_READERS = {'LoadImageFromFile', 'InferencerLoader', 'LoadImage'}


def use_pixels(cfg: Config, pixels: Pixels) -> list[str]:
    """Fits ``cfg`` to images that :func:`dwnet.data.pixels.pixels_of` has found not to be 8-bit colour.

    Steps that only work on 8-bit colour are left out.

    Returns:
        What was done, in a line or two.

    Raises:
        UserError: If the backbone or the data preprocessor cannot have so many channels.
    """
    scope, channels = cfg.get('default_scope'), pixels.channels
    what = f"{channels} channel{'s' if channels > 1 else ''} of {pixels.dtype}"
    backbone = cfg.model.get('backbone') or {}
    if channels != 3:
        kind = class_of(backbone, MODELS, scope)
        if not any('in_channels' in inspect.signature(base.__init__).parameters for base in getattr(
                kind, '__mro__', ())):
            name = type_name(backbone) if backbone else 'this model'
            raise UserError(f'the images have {what}, and {name} has no argument in_channels: take another backbone, '
                            'or convert the images to colour of 8 bits')
        backbone.in_channels = channels
    _set_normalisation(cfg, pixels)
    left_out: dict[str, None] = {}
    for pipeline in _pipelines(cfg):
        pipeline[:] = _fitted(pipeline, pixels, scope, left_out)
    cfg.pixels = dict(channels=channels, dtype=pixels.dtype)
    notes = [f'the images have {what}: mean and standard deviation are computed from them']
    return notes + [f"steps for 8-bit colour are left out: {', '.join(left_out)}"] * bool(left_out)


def _set_normalisation(cfg: Config, pixels: Pixels) -> None:
    toolbox = known_toolbox_of(cfg, 'other pixels than 8-bit colour')
    found = [settings for settings in (cfg.model.get('data_preprocessor'), cfg.get('data_preprocessor')) if settings]
    if not found:
        cfg.model.data_preprocessor = dict(type=toolbox.preprocessor_type)
        found = [cfg.model.data_preprocessor]
    for settings in found:
        switches = [name for name in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr') if settings.get(name)]
        as_in_file = bool(switches) or pixels.channels != 3  # the reader turns three channels round
        settings.update({name: list(values if as_in_file else reversed(values))
                         for name, values in (('mean', pixels.mean), ('std', pixels.std))})
        if pixels.channels != 3:
            settings.update(dict.fromkeys(switches, False))
        toolbox.accept_channels(cfg, settings)


def _pipelines(part: Any) -> Iterator[list]:
    """The pipelines in a config: those of data sets, of hooks, and of test-time augmentation."""
    for key, value in part.items() if isinstance(part, (dict, Config)) else enumerate(part):
        if str(key).endswith('pipeline') and isinstance(value, list):
            yield value
        elif isinstance(value, (dict, list, tuple)):
            yield from _pipelines(value)


def _fitted(steps: list, pixels: Pixels, scope: str | None, left_out: dict[str, None]) -> list:
    """The steps of a pipeline that work on such images; the names of the others are added to ``left_out``."""
    unsuited = _FOR_COLOUR | ({'Pad'} if pixels.channels > 4 else set())  # OpenCV pads four channels at most
    fitted = []
    for step in steps:
        if isinstance(step, (list, tuple)):  # one of several ways
            fitted.append(_fitted(step, pixels, scope, left_out))
            continue
        names = {name.rpartition('.')[2] for name in lineage(step, TRANSFORMS, scope)}
        if names & unsuited:
            left_out[type_name(step)] = None
            continue
        if names & _READERS:
            step.update(dict(color_type='grayscale') if pixels.is_grey else
                        dict(color_type='unchanged', to_float32=pixels.dtype != 'uint8'))
        if step.get('backend') == 'pillow' and not pixels.is_grey:
            step['backend'] = 'cv2'
        if 'pad_val' in step and pixels.channels != 3:
            step['pad_val'] = _first(step['pad_val'])
        if isinstance(step.get('transforms'), (list, tuple)):
            ways = [[way] if isinstance(way, dict) else way for way in step['transforms']]
            step['transforms'] = _fitted(ways if 'RandomChoice' in names else step['transforms'], pixels, scope,
                                         left_out)
        fitted.append(step)
    return fitted


def _first(value: Any) -> Any:
    """A padding value for any number of channels."""
    if isinstance(value, dict):
        return {key: _first(part) for key, part in value.items()}
    return value[0] if isinstance(value, (list, tuple)) else value


# --- What a config reads -------------------------------------------------------------------------------


def reader_of(cfg: Config | None) -> LoadWholeImage:
    """The reader of single images for a model: with the channels and bits that the config's tests read."""
    step = _reading_step(cfg)
    kind = step.get('color_type', 'color')
    return LoadWholeImage(color_type=kind, to_float32=kind == 'unchanged' and step.get('to_float32', False))


def has_own_range(cfg: Config | None) -> bool:
    """Whether the values of the images that a config reads have another range than 0 to 255; None reads colour."""
    reader = reader_of(cfg)
    return reader.color_type == 'unchanged' and reader.to_float32


def _reading_step(cfg: Config | None) -> dict:
    for pipeline in _pipelines((cfg or {}).get('test_dataloader') or {}):
        for step in pipeline:
            if type_name(step).rpartition('.')[2] in _READERS:
                return step
    return {}
