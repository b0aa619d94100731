"""A model's config as data: ``config.json`` in a folder as on the Hugging Face Hub.

A config in Python runs when it is read, and a config in any form can name any function as a ``type``, which mmengine
imports and calls. ``config.json`` is read as JSON, and before anything is imported or built, :func:`check` compares it
with what a model's config needs: known keys, scopes and types, numbers, and words that cannot be a path or an address.
"""
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from dwnet.errors import UserError, some
from dwnet.version import __version__

from . import TOOLBOXES
from .hub_types import TYPES

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
# Scopes in which types are looked up
SCOPES = {*TOOLBOXES, 'dwnet', 'mmcv', 'mmengine'}
# What config.json holds. `library_name` is what the Hub's pages look for.
KEYS = ('library_name', 'dwnet_version', 'default_scope', 'model', 'test_pipeline', 'visualizer', 'dataset_meta')
# What a visualizer may have. Others say where it writes.
VISUALIZER = ('type', '_scope_', 'name')
# JSON has no tuples, and the toolboxes tell tuples from lists
TUPLE = '__tuple__'
# Neither a path nor an address nor a dotted name: some classes load the files that their arguments name. The last words
# are those that mmengine.load takes for a whole name of a file.
WORD = re.compile(r'(?!(?:json|yaml|yml|pkl|pickle|npy|npz)\Z)[A-Za-z0-9_+-]*', re.ASCII)
# Where weights would come from other files. The folder brings all weights.
LOADING = ('init_cfg', 'pretrained')
# How files would be read if not from the disk: by a package that is imported. mmengine's memcached imports `mc`, also
# from a folder that its argument `sys_path` names.
READING = ('backend_args', 'file_client_args', 'io_backend')
LARGEST = 10 * 2**20  # bytes of config.json
DEEPEST = 50  # dicts and lists inside each other


def as_data(cfg: Config, dataset_meta: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json holds of a config: the model, the steps that prepare an image, names and colours.

    Args:
        cfg: The config of a model.
        dataset_meta: ``classes`` and ``palette``, as :func:`dwnet.apis.init_model` gives them.

    Raises:
        UserError: If the config needs what no config.json may hold; the message names it.
    """
    test_data = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    visualizer = cfg.get('visualizer') or {}
    content = dict(
        library_name='dwnet',
        dwnet_version=__version__,
        default_scope=cfg.get('default_scope') or _scope_of_model(cfg),
        model=_plain(cfg.model, 'model'),
        test_pipeline=_plain(list(test_data.get('pipeline') or []), 'test_pipeline'),
        visualizer=_plain({key: visualizer[key] for key in VISUALIZER if key in visualizer}, 'visualizer'),
        dataset_meta={key: list(dataset_meta[key]) for key in ('classes', 'palette') if key in dataset_meta})
    check(content, 'the config')
    return content


def _scope_of_model(cfg: Config) -> str | None:
    from . import toolbox_of
    return toolbox_of(cfg).name


def _plain(part: Any, where: str) -> Any:
    """The JSON of a part of a config, without the keys that load other weights or say where files are."""
    if isinstance(part, Mapping):
        return {key: _plain(_name(value) if key == 'type' else value, f'{where}.{key}')
                for key, value in part.items() if key not in (*LOADING, *READING)}
    if isinstance(part, tuple):
        return {TUPLE: _plain(list(part), where)}
    if isinstance(part, list):
        return [_plain(item, f'{where}[{i}]') for i, item in enumerate(part)]
    if isinstance(part, np.generic):
        return part.item()
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    raise UserError(f'{where} is a {type(part).__name__}, which {CONFIG} cannot hold; write it as a number, a word, a '
                    'list or a dict')


def _name(kind: Any) -> Any:
    """The name of a class; pure-Python configs have classes in the place of names."""
    if not isinstance(kind, type):
        return kind
    package = kind.__module__.partition('.')[0]
    return f'{package}.{kind.__name__}' if package in TOOLBOXES or package == 'dwnet' else kind.__name__


def read(folder: Path) -> tuple[Config, str, dict[str, Any]]:
    """The config, the path of the weights, and the names and colours of the classes in a model's folder.

    Nothing is imported or built.

    Raises:
        UserError: If a file is missing or lies elsewhere, or config.json holds what no model's config needs.
    """
    file = _own_file(folder, CONFIG)
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f'it is larger than {LARGEST} bytes')
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{folder / CONFIG} is no JSON of a model: {error}') from error
    check(content, str(folder / CONFIG))
    parts = with_tuples(content)
    dataset = dict(pipeline=parts['test_pipeline'])
    cfg = Config(dict(default_scope=parts['default_scope'], model=parts['model'],
                      test_dataloader=dict(dataset=dataset), test_pipeline=parts['test_pipeline']))
    if parts['visualizer']:
        cfg.visualizer = parts['visualizer']
    return cfg, str(_own_file(folder, WEIGHTS)), parts['dataset_meta']


def _own_file(folder: Path, name: str) -> Path:
    """A regular file of the folder; a link is followed only where the Hub's own cache has links.

    Raises:
        UserError: If there is no such file.
    """
    file, home = (folder / name).resolve(), folder.resolve()
    # the cache has snapshots/REVISION/NAME, a link to blobs/SHA256
    blobs = home.parent.parent / 'blobs' if home.parent.name == 'snapshots' else home
    if not file.is_file():
        raise UserError(f'{folder} has no file {name}, so it is no folder that save_pretrained wrote')
    if file.parent not in (home, blobs):
        raise UserError(f'{folder / name} is a link to a file outside of the folder, and is not read')
    return folder / name  # by this name: a blob has no ending that says how to read it


def check(content: Any, source: str) -> None:
    """Compares the content of config.json with what the config of a model needs.

    Args:
        content: What JSON gives: dicts, lists, text and numbers.
        source: The file, for messages.

    Raises:
        UserError: At the first thing that is not needed, by its place and name.
    """
    if not isinstance(content, dict) or set(content) != set(KEYS):
        strange = sorted(set(content).symmetric_difference(KEYS)) if isinstance(content, dict) else [content]
        raise UserError(f'{source} must have the keys {", ".join(KEYS)} and no others; it differs in {some(strange)}')
    if not _is_among(content['default_scope'], TOOLBOXES):
        raise UserError(f"{source}: default_scope is {content['default_scope']!r}, and must be one of "
                        f"{', '.join(TOOLBOXES)}")
    for key in ('library_name', 'dwnet_version'):
        if not isinstance(content[key], str):
            raise UserError(f'{source}: {key} is {content[key]!r}, and must be text')
    kinds = dict(model=dict, test_pipeline=list, visualizer=dict, dataset_meta=dict)
    for key, kind in kinds.items():
        if not isinstance(content[key], kind) or TUPLE in content[key]:
            raise UserError(f'{source}: {key} must be a {kind.__name__}, and is {content[key]!r:.100}')
    if unknown := sorted(set(content['visualizer']).difference(VISUALIZER)):
        raise UserError(f'{source}: visualizer has {some(unknown)}, and may have {", ".join(VISUALIZER)} alone')
    for fault in _faults(content['dataset_meta'], 'dataset_meta', free_text=True):
        raise UserError(f'{source}: {fault}')
    for key in ('model', 'test_pipeline', 'visualizer'):
        for fault in _faults(content[key], key):
            raise UserError(f'{source}: {fault}; nothing was built')


def _faults(part: Any, where: str, free_text: bool = False, depth: int = 0) -> Iterator[str]:
    """What no config of a model needs, in words."""
    if depth > DEEPEST:
        yield f'{where[:100]}… is nested deeper than {DEEPEST} times'
    elif isinstance(part, dict) and set(part) == {TUPLE} and isinstance(part[TUPLE], list):
        yield from _faults(part[TUPLE], where, free_text, depth)
    elif isinstance(part, dict):
        for key, value in part.items():
            here = f'{where}.{key}'
            if key == 'type':
                yield from _faults_of_type(value, here)
            elif key == '_scope_':
                if not _is_among(value, SCOPES):
                    yield f'{here} is {value!r}, and must be one of {", ".join(sorted(SCOPES))}'
            elif key in LOADING:
                yield f'{here} is {value!r:.200}, and weights come from {WEIGHTS} alone'
            elif key in READING:
                yield f'{here} is {value!r:.200}, and files are read from the disk alone'
            elif key.startswith('_') or not key or not WORD.fullmatch(key):
                yield f'{here} is no name of an argument'
            else:
                yield from _faults(value, here, free_text, depth + 1)
    elif isinstance(part, list):
        for i, item in enumerate(part):
            yield from _faults(item, f'{where}[{i}]', free_text, depth + 1)
    elif isinstance(part, str) and not (free_text or WORD.fullmatch(part)):
        yield f'{where} is {part!r:.200}, and may be a word of letters, digits, _, + and -, but no path or address'


def _is_among(value: Any, names: Collection[str]) -> bool:
    return isinstance(value, str) and value in names


def _faults_of_type(kind: Any, where: str) -> Iterator[str]:
    scope, _, name = kind.rpartition('.') if isinstance(kind, str) else ('', '', '')
    if name not in TYPES or scope and scope not in SCOPES:
        yield (f'{where} is {kind!r:.200}, which is not on the list of types that a shared config may name '
               '(dwnet.toolboxes.hub_types.TYPES)')


def with_tuples(part: Any) -> Any:
    """What a config holds, of what JSON gives."""
    if isinstance(part, dict):
        if set(part) == {TUPLE}:
            return tuple(with_tuples(part[TUPLE]))
        return {key: with_tuples(value) for key, value in part.items()}
    return [with_tuples(item) for item in part] if isinstance(part, list) else part
