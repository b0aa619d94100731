"""The official code's names of tensors turned into ours.

Layouts: the official ImageNet classifier (bare names with ``head.``), a bare official backbone, an official
detector or segmentor with the backbone under ``backbone.``, and all that this project writes, by mmpretrain,
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
# The classifier's head: official, and as our timm models have it.
_HEADS = {'head.weight': 'head.fc.weight', 'head.bias': 'head.fc.bias',
          'head.fc.weight': 'head.fc.weight', 'head.fc.bias': 'head.fc.bias'}
_BLOCK = re.compile(r'layers\.(\d)\.blocks\.(\d+)\.(.+)')
_MERGING = re.compile(r'layers\.(\d)\.downsample\.(.+)')
_DENSE_NORM = re.compile(r'norm(\d)\.(.+)')
OURS = re.compile(
    r'(patch_embed\.(proj|norm)|norms\.[a-z]+\d|stages\.\d\.(downsample\.(norm|reduction)|blocks\.\d+\.('
    r'bn|norm_mixer|norm_mlp|mlp\.fc[12])))\.\w+|stages\.\d\.blocks\.\d+\.mixer\..+')  # whatever a mixer calls its own
# Only official DWNet files have it, so only theirs are renamed: Swin and ConvNeXt have a norm0, too.
_OFFICIAL_MARK = '.attn2conv.'


def is_official(keys: Iterable[str]) -> bool:
    return any(_OFFICIAL_MARK in key for key in keys)


def _backbone_name(key: str, official: bool) -> str | None:
    """Our name of a backbone key, or None if it has none."""
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
    if match := _MERGING.fullmatch(key):  # official: at the end of a stage; here: at the start of the next
        return f'stages.{int(match[1]) + 1}.downsample.{match[2]}'
    if match := _DENSE_NORM.fullmatch(key):
        return f'norms.bn{match[1]}.{match[2]}'
    if key.startswith('norm.'):
        return f'norms.ln3.{key.removeprefix("norm.")}'
    return None


def official_name(name: str, inhomogeneous: bool) -> str:
    """The official name behind one of ours: what the holder of an official file knows a tensor by."""
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
    """Each key of a file → our name, or None for a backbone key that has no place."""
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

    A classifier (it has a ``head``) becomes the state dict of an mmpretrain ``ImageClassifier``,
    ``backbone.…`` and ``head.fc.…``; a bare backbone stays bare; in a detector or segmentor the names
    under ``backbone.`` change and the heads' names, which mmdet and mmseg have kept, stay.

    Args:
        state_dict: Names and tensors.

    Returns:
        A new dict with the same tensors.

    Raises:
        KeyError: If a key has no place; the message lists all of them.
    """
    names = our_names(state_dict)
    if unknown := [key for key, name in names.items() if name is None]:
        raise KeyError(f"{len(unknown)} of {len(names)} keys are not DWNet's: {', '.join(unknown)}")
    return {name: state_dict[key] for key, name in names.items() if name is not None}


def rename_on_load(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pre-hook of the backbone's ``load_state_dict``: official names below ``prefix`` become ours, in place.

    So any loader, be it a toolbox's own Runner, takes an official detector or segmentor. It cannot help with an
    official classifier, whose names have no prefix: loaders do not show those to the backbone.
    """
    keys = [key for key in state_dict if key.startswith(prefix)]
    if is_official(keys):
        for key in keys:
            name = _backbone_name(key.removeprefix(prefix), official=True)
            if name is not None:
                state_dict[prefix + name] = state_dict.pop(key)
