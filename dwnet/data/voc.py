"""Pascal VOC: an XML file for each image, and lists of the images of each part in ``ImageSets/Main``.

``voc_file`` reads an XML file.
"""
import posixpath
import re
from collections import defaultdict
from pathlib import Path
from xml.etree.ElementTree import Element

from dwnet.errors import UserError, some

from .files import IMAGES, Files, part_in, part_of, read_text, with_progress
from .table import Entry, Table, leave_out, with_numbers
from .voc_file import Broken, VocLog, objects_of, read_voc, settle_boxes, size_of

NAME = 'voc'
NEEDS = 'XML files of Pascal VOC (an .xml for each image)'
_FOLDERS_OF_IMAGES = ('JPEGImages', 'images', 'Images', 'img', 'imgs')
_SIGN = re.compile(r'\s+-?[01]$')  # behind a name: whether the image has an object of a class


def read(files: Files, out: Path) -> Table | None:
    """The annotated images of ``files``; None if there is no XML file of Pascal VOC."""
    names = files.ending('.xml')
    if not any(files.mention(name, b'<annotation>', b'<annotation ') for name in names):
        return None
    notes: list[str] = []
    parts: dict[str, list[Entry]] = defaultdict(list)
    broken: dict[str, list[str]] = defaultdict(list)
    log, listed = VocLog(), _in_parts(files, names, notes)
    for part, name in with_progress(listed, 'reading XML files'):
        try:
            root = read_voc(files.path(name))
            image, objects = _image(files, name, root, part), objects_of(root, name, log)
            entry = Entry(image, size=size_of(root, files.path(image), objects, log), objects=objects)
        except Broken as error:
            broken[str(error)].append(name)
        else:
            parts[part or part_in(posixpath.dirname(image)) or 'all'].append(entry)
    leave_out(broken, len(listed), f'XML files below {files.root}', notes)
    log.tell(files.root, notes)
    entries = [entry for its in parts.values() for entry in its]
    settle_boxes([each for entry in entries for each in entry.objects], notes)
    folders, stems = {posixpath.dirname(entry.image) for entry in entries}, {posixpath.basename(n)[:-4] for n in names}
    others = {name for name in files.images if posixpath.dirname(name) in folders
              and posixpath.splitext(posixpath.basename(name))[0] not in stems} - {entry.image for entry in entries}
    if others:
        notes.append(f'{len(others)} images have no XML file and are left out: {some(sorted(others))}')
    return with_numbers('Pascal VOC', parts, notes)


def _image(files: Files, name: str, root: Element, part: str | None) -> str:
    """The image of an XML file: that of the same name, or else that which the file names."""
    written = (root.findtext('filename') or '').strip()
    image = name[:-4] + (posixpath.splitext(written)[1] or '.jpg')
    *folders, last = image.split('/')
    beside = ['/'.join([*folders[:i], folder, *folders[i + 1:], last])
              for i in reversed(range(len(folders))) for folder in _FOLDERS_OF_IMAGES]
    found = next((place for place in (image, *beside) if place in files), None) or files.locate(image, part=part)
    found = found or (files.locate(written, posixpath.dirname(name), part) if written else None)
    if found is None:
        raise Broken('whose image is missing')
    return found


# --- Parts -----------------------------------------------------------------------------------------------


def _in_parts(files: Files, names: list[str], notes: list[str]) -> list[tuple[str | None, str]]:
    """The XML files with their parts, as lists or else folders tell them; None if neither does."""
    of_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        of_stem[posixpath.basename(name)[:-4]].append(name)
    listed: dict[str, list[str]] = defaultdict(list)
    for place, part in _lists(files).items():
        stems = [_stem(line) for line in read_text(files.path(place)).splitlines() if line.strip()]
        found = {stem: _annotation(stem, place, part, of_stem, files) for stem in stems}
        missing = [stem for stem, name in found.items() if name is None]
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
        listed['train'] = [name for name in both if name not in listed['val']]
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


def _stem(line: str) -> str:
    """The name that a line gives: ``2007_000027``, ``2007_000027 -1``, or ``images/1.jpg annotations/1.xml``."""
    image, space, annotation = _SIGN.sub('', line.strip()).rpartition(' ')
    path = annotation if not space or image.lower().endswith(IMAGES) else f'{image} {annotation}'
    stem, ending = posixpath.splitext(posixpath.basename(path.replace('\\', '/')))
    return stem if ending.lower() in (*IMAGES, '.xml') else stem + ending


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
