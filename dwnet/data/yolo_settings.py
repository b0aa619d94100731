"""The names of the classes and the parts of YOLO's data: data.yaml, obj.data with obj.names, or classes.txt."""
import posixpath
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import yaml

from dwnet.errors import UserError, some

from .files import Files, part_of, read_text

_LONGEST = 10**6  # bytes of a file with settings
_CLASS_LISTS = ('classes.txt', 'obj.names', 'classes.names', '_darknet.labels')
_UNNAMED = {number: str(number) for number in range(1000)}


@dataclass
class Settings:
    """What is known beside the label files.

    Attributes:
        file: The file with the settings, below the root; '' if there is none.
        names: Number of a class → its name; the number itself if there are no names.
        named: Whether there are names.
        parts: Part → the folders, lists of images and images in it, as written; empty if no file tells.
        near: The folders to which these may be relative.
    """
    file: str = ''
    names: dict[int, str] = field(default_factory=lambda: _UNNAMED)
    named: bool = False
    parts: dict[str, list[str]] = field(default_factory=dict)
    near: list[str] = field(default_factory=list)


def read_settings(files: Files) -> Settings:
    """The settings of the data below a root.

    Raises:
        UserError: If several files have settings, or the settings are not whole.
    """
    found = {name: content for name in files.ending('.yaml', '.yml', '.data') if (content := _content(files, name))
             and ('names' in content or {'nc', 'train'} <= content.keys())}
    nearest = [name for name in found if name.count('/') == min(other.count('/') for other in found)]
    if len(nearest) > 1:
        raise UserError(f'{files.root} has several files with the names of classes: {some(nearest)}; leave one of them')
    if not nearest:
        return _with_names(Settings(), _class_list(files), f'a list of classes in {files.root}')
    file = nearest[0]
    content, where, folder = found[file], str(files.path(file)), posixpath.dirname(file)
    if 'kpt_shape' in content:
        raise UserError(f'{where} has keypoints (kpt_shape), which detectors do not learn: export boxes or polygons')
    names = content.get('names') or _class_list(files)
    if isinstance(names, str):
        if (place := files.place(names, folder)) is None:
            raise UserError(f'{where} takes the names of the classes from {names}, which is not below {files.root}')
        names = read_text(files.path(place)).strip().splitlines()
    near = [posixpath.join(folder, path) for path in (content.get('path'), '') if isinstance(path, str)]
    settings = _with_names(Settings(file, near=near), names, where)
    if not settings.named and str(content.get('nc')).isdecimal():
        settings.names = dict([*_UNNAMED.items()][:int(content['nc'])])
    for key, value in content.items():
        if (part := part_of(str(key))) and value:
            places = value if isinstance(value, list) else [value]
            if not all(isinstance(place, str) for place in places):
                raise UserError(f'{where}: {key} is neither a path nor a list of paths')
            settings.parts[part] = [*settings.parts.get(part, []), *filter(None, places)]
    return settings


def _content(files: Files, name: str) -> dict[str, Any]:
    """The settings in a file, all values as text: YAML takes a class "no" for False."""
    text = read_text(files.path(name)) if files.size(name) <= _LONGEST else ''
    if name.lower().endswith('.data'):
        return {key.strip(): value.strip() for line in text.splitlines() for key, _, value in [line.partition('=')]}
    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)  # makes text, lists and dicts, and runs nothing
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if 'names' in text:
            raise UserError(f'{files.path(name)} is no whole YAML ({error}); mend it, or take it away') from error
        return {}
    return content if isinstance(content, dict) else {}


def _class_list(files: Files) -> list[str]:
    """The list of classes; of several, as labelImg leaves in each folder, the longest, which begins with the others."""
    lists = {name: read_text(files.path(name)).rstrip().splitlines() for name in files.names
             if posixpath.basename(name).lower() in _CLASS_LISTS}
    longest = max(lists.values(), key=len, default=[])
    if any(names != longest[:len(names)] for names in lists.values()):
        raise UserError(f'{some(map(files.path, lists))} name different classes, or name them in another order: make '
                        'them equal')
    return longest


def _with_names(settings: Settings, names: Any, where: str) -> Settings:
    if not names:
        return settings
    try:
        pairs = enumerate(names) if isinstance(names, list) else names.items()
        numbered = {int(number): name.strip() for number, name in pairs if name.strip()}
    except (AttributeError, ValueError):
        raise UserError(f'{where}: names is neither a list of names nor a name for each number') from None
    if twice := [name for name, count in Counter(numbered.values()).items() if count > 1]:
        raise UserError(f'{where} gives several classes the name {some(twice)}: give each class a name of its own')
    settings.names, settings.named = dict(sorted(numbered.items())), True
    return settings
