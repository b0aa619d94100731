"""Weight files: the official code's state-dict names turned into ours, and pre-trained backbones.

Layouts: the official ImageNet classifier (bare names with ``head.``), a bare official backbone, and an
official detector or segmentor with the backbone under ``backbone.``.
"""
import re
from collections.abc import Mapping
from urllib.error import URLError

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from dwnet.errors import UserError

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


def read_state_dict(path: str) -> dict[str, Tensor]:
    """The weights in a file or at an address, by our names.

    They may lie at the top level or under ``state_dict`` or ``model``, with or without ``module.``.

    Raises:
        UserError: If the file is missing, damaged, refused since it would run code, or not DWNet's, or if
            the address cannot be reached.
    """
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except FileNotFoundError as error:
        raise UserError(f'weights {path} are missing') from error
    except URLError as error:
        raise UserError(f'{path} cannot be fetched ({error.reason}); fetch it where there is a network, then '
                        'name the file in its place, for a backbone by --cfg-options '
                        'model.backbone.init_cfg.checkpoint=FILE') from error
    except Exception as error:  # whatever a damaged or hostile file leads to
        raise UserError(f"{path} is damaged or holds more than weights, and is not loaded: "
                        f"{' '.join(str(error).split())[:300]}") from error
    if not isinstance(checkpoint, Mapping):
        raise UserError(f'{path} holds a {type(checkpoint).__name__}, not weights by name')
    state_dict = checkpoint
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), Mapping):
            state_dict = checkpoint[key]
            break
    if strange := [k for k, v in state_dict.items() if not (isinstance(k, str) and isinstance(v, Tensor))]:
        raise UserError(f"{path}: {', '.join(map(str, strange[:5]))} are no names of tensors, so these are not weights")
    try:
        return convert_state_dict({key.removeprefix('module.'): v for key, v in state_dict.items()})
    except KeyError as error:
        raise UserError(f'{path}: {error.args[0]}') from error


def load_pretrained(backbone: nn.Module, path: str) -> None:
    """Starts a backbone from a classifier, a detector, a segmentor or a backbone, ours or official.

    Every tensor of the backbone has to be in the file, except for the norms of its outputs: a detector's
    are new when it starts from a classifier.

    Raises:
        UserError: If the file lacks a tensor or has one of another shape; nothing is loaded then.
    """
    weights = read_state_dict(path)
    if any(key.startswith('backbone.') for key in weights):
        weights = {key.removeprefix('backbone.'): tensor for key, tensor in weights.items()
                   if key.startswith('backbone.')}
    own = backbone.state_dict()
    wanted = {key: tensor for key, tensor in own.items() if not key.startswith('norms.') or key in weights}
    missing = [key for key in wanted if key not in weights]
    misshapen = [f'{key} {tuple(weights[key].shape)} for {tuple(tensor.shape)}'
                 for key, tensor in wanted.items()
                 if key in weights and weights[key].shape != tensor.shape]
    for what, keys in (('lacks', missing), ('has other shapes:', misshapen)):
        if keys:
            raise UserError(f"{path} does not fit this backbone: it {what} {len(keys)} of {len(wanted)} "
                            f"tensors: {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}; check arch and "
                            "token_mixer")
    backbone.load_state_dict({key: weights[key] for key in wanted}, strict=False)
    new = sorted({key.rsplit('.', 1)[0] for key in own if key not in wanted})
    print_log(f'loaded {len(wanted)} of {len(own)} backbone tensors from {path}'
              + (f"; new: {', '.join(new)}" if new else ''), 'current')
