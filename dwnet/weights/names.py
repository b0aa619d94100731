"""Renames the official code's tensors to ours.

Known layouts: the official ImageNet classifier (bare names with ``head.``), a bare official backbone, an official
detector or segmentor with the backbone under ``backbone.``, and the files that this project writes by mmpretrain,
mmdet, mmsegmentation or timm.
"""
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

OFFICIAL_RELEASE = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease'

# Official name → ours, below ``layers.I.blocks.J.attn2conv``; ``conv`` is the spatial operator.
_MIXER = {
    'conv0': 'proj_in',
    'bn0': 'bn_in',
    'conv.conv1': 'spatial.squeeze',
    'conv.bn': 'spatial.bn',
    'conv.conv2': 'spatial.predict',
    'conv': 'spatial',
    'bn': 'bn_spatial',
    'conv2': 'proj_out',
    'bn2': 'bn_out',
}
# The inhomogeneous operator keeps its layers in lists.
_MIXER_INHOMOGENEOUS = {
    'conv.conv1.0': 'spatial.squeeze',
    'conv.conv1.1': 'spatial.bn',
    'conv.conv2.0': 'spatial.predict',
}
# The classifier's head: official names, and those of our timm models.
_HEADS = {'head.weight': 'head.fc.weight', 'head.bias': 'head.fc.bias',
          'head.fc.weight': 'head.fc.weight', 'head.fc.bias': 'head.fc.bias'}
_BLOCK = re.compile(r'layers\.(\d)\.blocks\.(\d+)\.(.+)')
_MERGING = re.compile(r'layers\.(\d)\.downsample\.(.+)')
_DENSE_NORM = re.compile(r'norm(\d)\.(.+)')
OURS = re.compile(
    r'(patch_embed\.(proj|norm)|norms\.[a-z]+\d|stages\.\d\.(downsample\.(norm|reduction)|blocks\.\d+\.('
    r'bn|norm_mixer|norm_mlp|mlp\.fc[12])))\.\w+|stages\.\d\.blocks\.\d+\.mixer\..+')  # a mixer may use any names
# Only official DWNet files have this mark, and only they are renamed: Swin and ConvNeXt have a norm0, too.
_OFFICIAL_MARK = '.attn2conv.'


def is_official(keys: Iterable[str]) -> bool:
    return any(_OFFICIAL_MARK in key for key in keys)


def _backbone_name(key: str, official: bool) -> str | None:
    """Our name of a backbone's tensor, or None for an unknown key."""
    if OURS.fullmatch(key):
        return key
    if not official:
        return None
    if match := _BLOCK.fullmatch(key):
        stage, block, rest = match.groups()
        if rest.startswith('attn2conv.'):
            module, _, tensor = rest.removeprefix('attn2conv.').rpartition('.')
            module = (_MIXER | _MIXER_INHOMOGENEOUS).get(module)
            return f'stages.{stage}.blocks.{block}.mixer.{module}.{tensor}' if module else None
        return f'stages.{stage}.blocks.{block}.{rest}' if rest.startswith(('mlp.fc1.', 'mlp.fc2.', 'bn.')) else None
    if match := _MERGING.fullmatch(key):  # official code: end of a stage; ours: start of the next stage
        return f'stages.{int(match[1]) + 1}.downsample.{match[2]}'
    if match := _DENSE_NORM.fullmatch(key):
        return f'norms.bn{match[1]}.{match[2]}'
    if key.startswith('norm.'):
        return f'norms.ln3.{key.removeprefix("norm.")}'
    return None


def official_name(name: str, inhomogeneous: bool) -> str:
    """The official name of a tensor, for messages to people who have an official file."""
    prefix, name = ('backbone.', name.removeprefix('backbone.')) if name.startswith('backbone.') else ('', name)
    if match := re.fullmatch(r'stages\.(\d)\.downsample\.(.+)', name):
        return f'{prefix}layers.{int(match[1]) - 1}.downsample.{match[2]}'
    if match := re.fullmatch(r'stages\.(\d\.blocks\.\d+)\.mixer\.(.+)\.(\w+)', name):
        officials = {ours: official for official, ours in (
            _MIXER | (_MIXER_INHOMOGENEOUS if inhomogeneous else {})).items()}
        return f'{prefix}layers.{match[1]}.attn2conv.{officials.get(match[2], match[2])}.{match[3]}'
    for ours, official in (('stages.', 'layers.'), ('norms.bn', 'norm'), ('norms.ln3', 'norm'), ('head.fc', 'head')):
        if name.startswith(ours):
            return prefix + official + name.removeprefix(ours)
    return prefix + name


def our_names(keys: Iterable[str]) -> dict[str, str | None]:
    """Each key of a file → our name, or None for an unknown key of the backbone."""
    keys = list(keys)
    official = is_official(keys)
    in_model = any(key.startswith('backbone.') for key in keys)
    classifier = not in_model and not _HEADS.keys().isdisjoint(keys)
    names: dict[str, str | None] = {}
    for key in keys:
        if in_model and not key.startswith('backbone.'):
            names[key] = key
        elif not in_model and key in _HEADS:
            names[key] = _HEADS[key]
        else:
            name = _backbone_name(key.removeprefix('backbone.'), official)
            names[key] = f'backbone.{name}' if name and (in_model or classifier) else name
    return names


def convert_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turns official names into ours; our own names pass unchanged.

    A classifier (with a ``head``) becomes the state dict of an mmpretrain ``ImageClassifier``: ``backbone.…`` and
    ``head.fc.…``. A bare backbone stays bare. In a detector or segmentor only the names under ``backbone.`` change;
    mmdet and mmseg still use the heads' names.

    Args:
        state_dict: Names and tensors.

    Returns:
        A new dict with the same tensors.

    Raises:
        KeyError: If keys are unknown; the message lists all of them.
    """
    names = our_names(state_dict)
    if unknown := [key for key, name in names.items() if name is None]:
        raise KeyError(f"{len(unknown)} of {len(names)} keys are not DWNet's: {', '.join(unknown)}")
    return {name: state_dict[key] for key, name in names.items() if name is not None}


def rename_on_load(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pre-hook of the backbone's ``load_state_dict``: renames official tensors below ``prefix`` to ours, in place.

    With the hook any loader, such as a toolbox's Runner, takes an official detector or segmentor. An official
    classifier's names have no prefix, so loaders do not pass them to the backbone and the hook cannot help.
    """
    keys = [key for key in state_dict if key.startswith(prefix)]
    if is_official(keys):
        for key in keys:
            name = _backbone_name(key.removeprefix(prefix), official=True)
            if name is not None:
                state_dict[prefix + name] = state_dict.pop(key)
