"""Files that say which colour, or which value, of a label image means which class.

These are CVAT's ``labelmap.txt`` (``name:r,g,b::``), CSV files of names and colours (``class_dict.csv``) or of names
and values (Roboflow's ``_classes.csv``), and JSON files of names and colours.
"""
import csv
import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dwnet.errors import UserError

from .files import Files

Colour = tuple[int, ...]
_STEM = re.compile(r'_?(class|classe|label|colou?r|categor(y|ie)|palette|legend|meta|config)s?[ _-]?'
                   r'(dict|map|names?|list|colou?rs?|info)?s?', re.IGNORECASE)
_NAMES = ('name', 'class', 'class_name', 'classes', 'label', 'category', 'title')
_COLOURS = ('color', 'colour', 'rgb', 'color_rgb', 'hex')
_VALUES = ('pixel_value', 'value', 'pixel', 'id', 'index', 'label_id')
_CHANNELS = (('r', 'red'), ('g', 'green'), ('b', 'blue'))


@dataclass
class Legend:
    """What a legend says.

    Attributes:
        file: Its name below the data root.
        classes: The names of the classes, in the order of the legend.
        colours: (red, green, blue) → the number of the class.
        values: Value of a pixel → the number of the class.
    """
    file: str
    classes: list[str]
    colours: dict[Colour, int]
    values: dict[int, int]


def read_legend(files: Files) -> Legend | None:
    """The legend among ``files``; None if there is none. Copies in several folders are one legend.

    Raises:
        UserError: If a legend has a broken line, or two legends differ.
    """
    legends = []
    for name in files.ending('.txt', '.csv', '.json'):
        stem, ending = posixpath.splitext(posixpath.basename(name))
        if not _STEM.fullmatch(stem) or ending.lower() == '.txt' and stem.lower() not in ('labelmap', 'label_map'):
            continue
        read = dict(txt=_of_labelmap, csv=_of_csv, json=_of_json)[ending.lower()[1:]]
        try:
            pairs = list(read(files.path(name).read_text(encoding='utf-8-sig'), str(files.path(name))))
        except (UnicodeDecodeError, ValueError, RecursionError, csv.Error) as error:
            raise UserError(f'{files.path(name)} cannot be read ({error}); save it again, as text in UTF-8, or '
                            'move it away') from error
        if pairs:
            legends.append(_legend(name, pairs, files))
    if unlike := [other for other in legends[1:] if (other.classes, other.colours, other.values) != (
            legends[0].classes, legends[0].colours, legends[0].values)]:
        raise UserError(f'{files.path(legends[0].file)} and {unlike[0].file} say different things about the classes: '
                        'keep the one that the label images were drawn with')
    return legends[0] if legends else None


def _legend(name: str, pairs: list[tuple[str, Colour | int]], files: Files) -> Legend:
    legend = Legend(name, list(dict.fromkeys(label for label, _ in pairs)), {}, {})
    for label, key in pairs:
        number = legend.classes.index(label)
        known: dict[Any, int] = legend.values if isinstance(key, int) else legend.colours
        if known.setdefault(key, number) != number:
            raise UserError(f'{files.path(name)} gives {label} and {legend.classes[known[key]]} the same '
                            f"{'value' if isinstance(key, int) else 'colour'}, {key}: give each its own")
    return legend


def _of_labelmap(text: str, where: str) -> Iterator[tuple[str, Colour]]:
    for line in filter(None, map(str.strip, text.splitlines())):
        if not line.startswith('#'):
            name, *rest = line.rsplit(':', 3)
            if len(rest) != 3 or (colour := _colour(rest[0])) is None:
                raise UserError(f'{where}: the line {line} is no name:red,green,blue::')
            yield name, colour


def _of_csv(text: str, where: str) -> Iterator[tuple[str, Colour | int]]:
    """The rows; none if the columns are not those of a legend, as in a list of files and labels."""
    delimiter = max(',;\t', key=text.partition('\n')[0].count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(row)]
    if not rows:
        return
    if len(rows[0]) == 4 and _colour(rows[0][1:]):
        head = ['name', 'r', 'g', 'b']
    else:
        head = ['_'.join(cell.lower().split()) for cell in rows.pop(0)]
    name, colour, value, *channels = (next((each for each in known if each in head), '')
                                      for known in (_NAMES, _COLOURS, _VALUES, *_CHANNELS))
    if not name or not all(channels) and not colour and not value:
        return
    for cells in rows:
        if len(cells) < len(head):
            raise UserError(f'{where}: the row {delimiter.join(cells)} has {len(cells)} cells, and the head '
                            f'{len(head)}')
        row = dict(zip(head, cells))
        key: Colour | int | None = None
        if all(channels) or colour:
            key = _colour([row[channel] for channel in channels] if all(channels) else row[colour])
        elif row[value].isdecimal():
            key = int(row[value])
        if key is None or not row[name]:
            raise UserError(f'{where}: the row {delimiter.join(cells)} has no name with a colour or a value')
        yield row[name], key


def _of_json(text: str, where: str) -> Iterator[tuple[str, Colour | int]]:
    content = json.loads(text)
    if isinstance(content, dict):
        pairs = [(name, key) for name, value in content.items() if (key := _key(value)) is not None]
        if pairs and len(pairs) == len(content):
            yield from pairs
            return
        content = next((part for part in content.values() if isinstance(part, list)), [])
    for entry in content if isinstance(content, list) else ():
        if isinstance(entry, dict):
            names, keys = ([entry[known] for known in among if known in entry]
                           for among in (_NAMES, (*_COLOURS, *_VALUES)))
            if names and isinstance(names[0], str) and keys and (found := _key(keys[0])) is not None:
                yield names[0], found


def _key(value: Any) -> Colour | int | None:
    if isinstance(value, int):
        return value if not isinstance(value, bool) and value >= 0 else None
    return _colour(value)


def _colour(value: Any) -> Colour | None:
    """The colour of ``'#ff8000'``, ``'255 128 0'`` or ``[255, 128, 0]``; None if it is none."""
    if isinstance(value, str):
        if re.fullmatch('#?[0-9a-fA-F]{6}', value.strip()) and not value.strip().isdecimal():
            return tuple(bytes.fromhex(value.strip().lstrip('#')))
        value = re.findall(r'-?[\d.]+', value)
    if not isinstance(value, list) or len(value) not in (3, 4):  # the fourth is the opacity
        return None
    parts = [int(part) if str(part).isdecimal() and len(str(part)) < 4 else -1 for part in value[:3]]
    return tuple(parts) if all(0 <= part < 256 for part in parts) else None
