"""The official code's state-dict names, turned into ours.

Layouts: the official ImageNet classifier (bare names with ``head.``), a bare official backbone, and an
official detector or segmentor with the backbone under ``backbone.``.
"""
import re
from collections.abc import Mapping

from torch import Tensor

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
_BLOCK = re.compile(r'layers\.(\d)\.blocks\.(\d+)\.(.+)')
_MERGING = re.compile(r'layers\.(\d)\.downsample\.(.+)')
_DENSE_NORM = re.compile(r'norm(\d)\.(.+)')
_OURS = re.compile(r'(patch_embed|stages\.\d+\.(blocks|downsample)|norms\.\w+\d)\.')


def _convert_backbone_key(key: str) -> str | None:
    """Our name of an official or own backbone key, or None if it is neither."""
    if _OURS.match(key):
        return key
    if match := _BLOCK.fullmatch(key):
        stage, block, rest = match.groups()
        if rest.startswith('attn2conv.'):
            module, _, tensor = rest.removeprefix('attn2conv.').rpartition('.')
            if module not in _MIXER:
                return None
            rest = f'mixer.{_MIXER[module]}.{tensor}'
        elif not rest.startswith(('mlp.fc1.', 'mlp.fc2.', 'bn.')):
            return None
        return f'stages.{stage}.blocks.{block}.{rest}'
    if match := _MERGING.fullmatch(key):  # official: at the end of a stage; here: at the start of the next
        return f'stages.{int(match[1]) + 1}.downsample.{match[2]}'
    if match := _DENSE_NORM.fullmatch(key):
        return f'norms.bn{match[1]}.{match[2]}'
    if key.startswith('norm.'):
        return f'norms.ln3.{key.removeprefix("norm.")}'
    return None


def convert_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turns official names into ours; our own names pass unchanged.

    A classifier (it has ``head.weight``) becomes the state dict of an mmpretrain ``ImageClassifier``,
    ``backbone.…`` and ``head.fc.…``; a bare backbone stays bare; in a detector or segmentor the names
    under ``backbone.`` change and the heads' names, which mmdet and mmseg have kept, stay.

    Args:
        state_dict: Names and tensors.

    Returns:
        A new dict with the same tensors.

    Raises:
        KeyError: If a key has no place; the message lists all of them.
    """
    if any(key.startswith('backbone.') for key in state_dict):
        prefix_in = prefix_out = 'backbone.'
    else:
        prefix_in, prefix_out = '', 'backbone.' if 'head.weight' in state_dict else ''
    converted, unknown = {}, []
    for key, tensor in state_dict.items():
        if not key.startswith(prefix_in):
            converted[key] = tensor
        elif not prefix_in and key in ('head.weight', 'head.bias'):
            converted[key.replace('head.', 'head.fc.')] = tensor
        elif (name := _convert_backbone_key(key.removeprefix(prefix_in))) is not None:
            converted[prefix_out + name] = tensor
        else:
            unknown.append(key)
    if unknown:
        raise KeyError(f"{len(unknown)} of {len(state_dict)} keys are not DWNet's: {', '.join(unknown)}")
    return converted
