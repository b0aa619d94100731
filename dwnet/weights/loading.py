"""Reads weight files safely, loads them strictly, and writes them clean; every tensor that is left out is named."""
import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import safetensors.torch
import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from dwnet.errors import UserError

from .names import OURS, convert_state_dict, is_official, official_name, our_names
from .safety import check_file, checkpoint_types, with_digest
from .stem import adapted, fits_after_adapting


def read_checkpoint(path: str | Path, map_location: str | Callable = 'cpu') -> dict[str, Any]:
    """The whole content of a ``.pth`` or ``.safetensors`` file, with the weights under ``state_dict``.

    :func:`plain_weights` says where in the file the weights may be, and how they are named.

    Raises:
        UserError: If the file is missing, damaged, would run code, or holds no weights, or if the address cannot be
            reached.
    """
    path = str(path)
    try:
        if '://' not in path:
            check_file(path)
        if path.endswith('.safetensors'):
            if '://' in path:
                raise UserError(f'{path}: download a .safetensors file first, and give its path')
            device = map_location if isinstance(map_location, str) else 'cpu'
            checkpoint: Any = dict(state_dict=safetensors.torch.load_file(path, device))
        else:
            with checkpoint_types():
                checkpoint = (
                    CheckpointLoader.load_checkpoint(path, map_location=map_location, logger='silent')
                    if '://' in path else torch.load(path, map_location=map_location, weights_only=True))
        weights = plain_weights(checkpoint, path)
        if expanded := [key for key, tensor in weights.items()
                        if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes()]:
            raise UserError(f"{path}: the file holds less data than these tensors need: {', '.join(expanded[:5])}")
        key = _key_of_weights(checkpoint)
        beside = {name: value for name, value in checkpoint.items() if name != key} if key else {}
        return {**beside, 'state_dict': weights}
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f'weights {path} are missing') from error
    except URLError as error:
        raise UserError(f'{path} cannot be fetched ({error.reason}); download it where there is a network, and give '
                        "the file's path instead, for a backbone by --cfg-options "
                        'model.backbone.init_cfg.checkpoint=FILE') from error
    except Exception as error:  # a damaged or hostile file may raise anything
        raise UserError(f"{path} cannot be read, is damaged, or holds more than weights, and is not loaded: "
                        f"{' '.join(str(error).split())[:300]}") from error


def _key_of_weights(checkpoint: Mapping[str, Any]) -> str | None:
    return next((key for key in ('state_dict', 'model', 'model_state_dict')
                 if isinstance(checkpoint.get(key), Mapping)), None)


def plain_weights(checkpoint: Any, source: str) -> dict[str, Tensor]:
    """The weights of a checkpoint, without the prefixes that DistributedDataParallel and torch.compile add to names.

    Args:
        checkpoint: Names and tensors, or a mapping that has them under ``state_dict``, ``model`` or
            ``model_state_dict``. Names may begin with ``module.`` (DistributedDataParallel) and have ``_orig_mod.``
            anywhere (torch.compile).
        source: File or address, for messages.

    Raises:
        UserError: If there are no weights, or two of one name.
    """
    if not isinstance(checkpoint, Mapping):
        raise UserError(f'{source} holds a {type(checkpoint).__name__}, not a mapping of names to weights')
    weights = checkpoint.get(_key_of_weights(checkpoint), checkpoint)
    if strange := [k for k, v in weights.items() if not (isinstance(k, str) and isinstance(v, Tensor))]:
        raise UserError(f"{source}: {', '.join(map(str, strange[:5]))} are no names of tensors, so these are not "
                        'weights')
    plain: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        name = re.sub(r'(?<![^.])_orig_mod\.', '', key).removeprefix('module.')
        if plain.setdefault(name, tensor) is not tensor:
            raise UserError(f"{source} has {name} twice, with and without 'module.' or '_orig_mod.'")
    return plain


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    """Tensors of one kind copy into each other: the width may differ, but no fraction is lost."""
    return tensor.is_floating_point(), tensor.is_complex()


def read_state_dict(path: str) -> dict[str, Tensor]:
    """The weights in a file or at an address, by our names.

    Raises:
        UserError: As :func:`read_checkpoint`, or if the weights are not DWNet's.
    """
    return _converted(read_checkpoint(path)['state_dict'], path)


def _converted(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    try:
        return convert_state_dict(weights)
    except KeyError as error:
        raise UserError(f'{source}: {error.args[0]}') from error


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str,
                 new_heads: bool = False, dry_run: bool = False) -> dict[str, Tensor]:
    """Loads a whole model, strictly: a classifier, detector, segmentor or backbone, ours or official.

    Args:
        model: The model to load into.
        weights: Tensors by official names, by ours, or by those of any other model.
        source: File or address, for messages.
        new_heads: Start from weights for other data. Head tensors (all but ``backbone.`` and ``neck.``) whose shape
            differs, as it does for other classes, keep their initialisation; tensors of heads that the model lacks are
            ignored; and a first convolution for RGB is adapted to the model's channels (:mod:`dwnet.weights.stem`).
            The log lists all of these.
        dry_run: Only check that the weights fit.

    Returns:
        The loaded tensors by the model's names.

    Raises:
        UserError: If a tensor is missing, is not the model's, or has another shape; nothing is loaded then.
    """
    own = model.state_dict()
    names = our_names(weights)
    nested = any(name.startswith('backbone.') for name in own)
    in_file = any((name or key).startswith('backbone.') for key, name in names.items())
    # timm's models and bare backbones have no prefix; detectors, segmentors and mmpretrain's classifiers have one
    strip, add = ('', 'backbone.') if nested and not in_file else ('' if nested else 'backbone.', '')
    keys = _keys_by_name(names, source, strip, add)
    new = {name for name, key in keys.items() if new_heads
           and (name not in own or weights[key].shape != own[name].shape)
           and not (name.startswith(('backbone.', 'neck.')) or OURS.fullmatch(name))}
    return _load(model, weights, keys, source, new, adapt=new_heads, dry_run=dry_run)


def load_pretrained(backbone: nn.Module, path: str) -> None:
    """Loads a backbone from a file or an address; see :func:`load_backbone`."""
    load_backbone(backbone, read_checkpoint(path)['state_dict'], path)


def load_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], source: str, dry_run: bool = False) -> None:
    """Loads a backbone from a classifier, a detector, a segmentor or a backbone, ours or official.

    The weights must have every tensor of the backbone in the same shape. Three things may differ: the output norms,
    which are new in a detector that starts from a classifier; the stages behind the last output, which the
    backbone does not build; and the channels of the image, to which RGB weights are adapted
    (:mod:`dwnet.weights.stem`). A ``dry_run`` only checks that the weights fit.

    Raises:
        UserError: If the weights do not fit; nothing is loaded then.
    """
    names = our_names(weights)
    if any((name or key).startswith('backbone.') for key, name in names.items()):
        names = {key: name for key, name in names.items() if (name or key).startswith('backbone.')}
    keys = _keys_by_name(names, source, strip='backbone.')
    own = backbone.state_dict()
    stages = {name.split('.')[1] for name in own if name.startswith('stages.')}
    unbuilt = {name for name in keys if name.startswith('stages.') and name.split('.')[1] not in stages}
    official = is_official(weights)
    _load(backbone, weights, keys, source, unbuilt | _other_norms(own, keys, official), adapt=True, dry_run=dry_run)


def _other_norms(own: Iterable[str], given: Iterable[str], official: bool) -> set[str]:
    """The output norms that a backbone and a file need not share.

    The file's norms of outputs that the backbone does not return; and the backbone's norms, if they are of another
    kind than the file's, or if the file is a classifier, whose only norm is behind the last stage. An official file
    without norms gets no exception: all official files have norms.
    """
    own, given = ({n for n in names if n.startswith('norms.')} for names in (own, given))
    if official and not given:
        return set()
    spare = {name for name in given if name.rpartition('.')[0] not in _modules(own)}
    kinds = {_norm_kind(name) for name in given}
    classifier = _modules(given) == {'norms.ln3'}
    new = {name for name in own if _norm_kind(name) not in kinds or (classifier and not name.startswith('norms.ln3.'))}
    return spare | new


def _norm_kind(norm: str) -> str:
    """``'ln'`` of ``'norms.ln3.weight'``."""
    return norm.split('.')[1].rstrip('0123456789')


def write_clean(source: str | Path, target: str | Path) -> Path:
    """Writes the weights of a file, by our names, as ``NAME-SHA256[:8].SUFFIX``.

    A .pth file also keeps the names of the classes (``dataset_meta``); all else in the source is dropped.

    Args:
        source: A file or an address, ours or official.
        target: A path ending in ``.pth`` or ``.safetensors``; its name gets the first eight digits of the
            content's SHA-256, as OpenMMLab publishes its files.

    Returns:
        The path that was written.

    Raises:
        UserError: If the source cannot be read or is not DWNet's, or the target has another ending or cannot be
            written.
    """
    path = Path(target)
    if path.suffix not in ('.pth', '.safetensors'):
        raise UserError(f'{target}: name a file that ends in .pth or .safetensors')
    checkpoint = read_checkpoint(str(source))
    # clone: torch.save writes a view's whole base, and safetensors refuses tensors that share memory
    weights = {name: tensor.detach().cpu().contiguous().clone()
               for name, tensor in _converted(checkpoint['state_dict'], str(source)).items()}
    meta = checkpoint.get('meta')
    kept = {key: meta[key] for key in ('dataset_meta', ) if isinstance(meta, dict) and key in meta}
    if path.suffix == '.pth':
        buffer = io.BytesIO()
        torch.save(dict(state_dict=weights, meta=kept), buffer)
        content = buffer.getvalue()
    else:
        content = with_digest(safetensors.torch.save(weights))
    final = path.with_name(f'{path.stem}-{hashlib.sha256(content).hexdigest()[:8]}{path.suffix}')
    unfinished = final.with_name(f'.{final.name}.unfinished')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        return unfinished.rename(final)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise UserError(f'{final} cannot be written: {error.strerror}') from error


def _keys_by_name(names: Mapping[str, str | None], source: str, strip: str = '', add: str = '') -> dict[str, str]:
    """Our name, without the prefix ``strip`` and with the prefix ``add`` → the key in the file.

    An unknown key stays as it is: no model of ours has a tensor of that name.
    """
    keys: dict[str, str] = {}
    for key, name in names.items():
        name = add + (name or key).removeprefix(strip)
        if keys.setdefault(name, key) != key:
            raise UserError(f'{source} has the same tensor twice, as {keys[name]} and as {key}')
    return keys


def _modules(names: Iterable[str]) -> set[str]:
    return {name.rpartition('.')[0] for name in names}


def _load(model: nn.Module, weights: Mapping[str, Tensor], keys: dict[str, str], source: str,
          leave_out: Collection[str], adapt: bool, dry_run: bool) -> dict[str, Tensor]:
    """Copies ``weights[keys[name]]`` into the model for all names but ``leave_out``, and logs how many.

    With ``adapt`` a convolution for RGB is adapted to the model's channels.
    """
    own = model.state_dict()
    wanted = {name: tensor for name, tensor in own.items() if name not in leave_out}
    given = {name: weights[key] for name, key in keys.items() if name not in leave_out}
    for_rgb = [name for name, tensor in given.items()
               if adapt and name in wanted and fits_after_adapting(tensor, wanted[name])]
    given.update({name: adapted(given[name], wanted[name].shape[1]) for name in for_rgb})
    official = is_official(keys.values())
    inhomogeneous = any('.attn2conv.conv.conv1.0.' in key for key in keys.values())

    def known_as(name: str) -> str:
        return f'{name} (officially {official_name(name, inhomogeneous)})' if official else name

    faults = {
        f'lacks {{}} of {len(wanted)} tensors': [known_as(name) for name in wanted if name not in given],
        'has {} beyond the model': [keys[name] for name in given if name not in wanted],
        'has {} of another shape': [
            f'{keys[name]} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}'
            for name, tensor in given.items() if name in wanted and tensor.shape != wanted[name].shape],
        'has {} of another kind': [
            f'{keys[name]} {tensor.dtype} for {wanted[name].dtype}'
            for name, tensor in given.items() if name in wanted and _kind(tensor) != _kind(wanted[name])],
    }
    reasons = [f"it {what.format(len(names))}: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
               for what, names in faults.items() if names]
    if reasons:
        raise UserError(f"{source} does not fit the model: {'; '.join(reasons)}; check arch, token_mixer and the "
                        'number of classes')
    if dry_run:
        return given
    model.load_state_dict(given, strict=False)
    counts = []
    for is_backbone, part in ((True, 'backbone'), (False, 'other')):
        names = [name for name in own if bool(name.startswith('backbone.') or OURS.fullmatch(name)) == is_backbone]
        if names:
            counts.append(f'{sum(name in given for name in names)} of {len(names)} {part} tensors')
    remarks = {'new': _modules(name for name in leave_out if name in own),
               'unused': {re.sub(r'^(stages\.\d).*', r'\1', name)
                          for name in _modules(name for name in leave_out if name not in own)},
               'from RGB to the channels of the images': _modules(for_rgb)}
    print_log(f"loaded {' and '.join(counts)} from {source}"
              + ''.join(f"; {what}: {', '.join(sorted(modules))}" for what, modules in remarks.items() if modules),
              'current')
    return given
