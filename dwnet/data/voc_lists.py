"""The parts of Pascal VOC: ``ImageSets/Main/train.txt`` and other lists of images, or folders called like parts."""
import posixpath
import re
from collections import defaultdict

from dwnet.errors import UserError, some

from .files import IMAGES, Files, part_in, part_of, read_text
from .table import leave_out

_SIGN = re.compile(r'\s+-?[01]$')  # behind a name: whether the image has an object of a class
_PAIR = re.compile(r'\.\w+\s+(.+\.xml)$', re.IGNORECASE)  # an image and its XML file


def in_parts(files: Files, names: list[str], notes: list[str]) -> list[tuple[str | None, str]]:
    """The XML files with their parts, as lists or else folders tell them; None if neither does.

    Args:
        files: The files below the data root.
        names: The XML files.
        notes: The notes of the table.

    Raises:
        UserError: If many images in a list have no XML file.
    """
    of_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        of_stem[posixpath.basename(name)[:-4]].append(name)
    listed: dict[str, list[str]] = defaultdict(list)
    for place, part in _lists(files).items():
        lines = [line.strip() for line in read_text(files.path(place)).splitlines() if line.strip()]
        found = {line: next((name for stem in _stems(line) if (name := _annotation(stem, place, part, of_stem, files))),
                            None) for line in lines}
        missing = [line for line, name in found.items() if name is None]
        if len(missing) == len(found):
            notes.append(f'{files.path(place)} lists no image with an XML file and is passed over')
        else:
            where = f'images in {files.path(place)}'
            leave_out({'without an XML file': missing}, len(found), where, notes)
            listed[part] += [name for name in found.values() if name]
    if not listed:
        return [(part_in(posixpath.dirname(name)), name) for name in names]
    both = listed.pop('trainval', [])
    if 'train' not in listed:
        val = set(listed['val'])
        listed['train'] = [name for name in both if name not in val]
    taken = {name for its in listed.values() for name in its}
    if left := [name for name in names if name not in taken]:
        notes.append(f'{len(left)} XML files are of images in no list and are left out: {some(left)}')
    return [(part, name) for part, its in listed.items() for name in its]


def _lists(files: Files) -> dict[str, str]:
    """Text file → the part whose images it lists; ``'trainval'`` is one here."""
    stems = {name: posixpath.basename(name)[:-4].lower() for name in files.ending('.txt')}
    lists = {name: part for name, stem in stems.items() if (part := 'trainval' * (stem == 'trainval') or part_of(stem))}
    for folder in ('ImageSets/Main', 'ImageSets/Segmentation'):
        if chosen := {name: part for name, part in lists.items() if posixpath.dirname(name).endswith(folder)}:
            return chosen
    return lists


def _stems(line: str) -> list[str]:
    """The names that a line may mean: ``2007_000027``, ``2007_000027 -1``, or ``images/1.jpg annotations/1.xml``."""
    pair = _PAIR.search(line)
    stems = []
    for path in (pair[1] if pair else line, _SIGN.sub('', line)):
        stem, ending = posixpath.splitext(posixpath.basename(path.replace('\\', '/')))
        stems.append(stem if ending.lower() in (*IMAGES, '.xml') else stem + ending)
    return stems


def _annotation(stem: str, place: str, part: str, of_stem: dict[str, list[str]], files: Files) -> str | None:
    """The XML file that a line of the list ``place`` means."""
    usual = f"{place.partition('ImageSets/')[0]}Annotations/{stem}.xml"
    found = [usual] if usual in files else of_stem.get(stem, [])
    if len(found) > 1:
        found = [name for name in found if part_in(posixpath.dirname(name)) == part] or found
    if len(found) > 1:
        raise UserError(f'{files.path(place)} lists {stem}, and several XML files are called so: {some(found)}; give '
                        'them names of their own')
    return found[0] if found else None
