"""Pascal VOC: an XML file for each image (``voc_file``), and lists of the images of a part (``voc_lists``)."""
import posixpath
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree.ElementTree import Element

from dwnet.errors import some

from .files import Files, part_in, with_progress
from .shapes import Broken, ShapeLog
from .table import Entry, Table, leave_out, with_numbers
from .voc_file import boxes_of, read_voc, settle_corners, size_of
from .voc_lists import in_parts

NAME = 'voc'
NEEDS = 'XML files of Pascal VOC (an .xml for each image)'
_FOLDERS_OF_IMAGES = ('JPEGImages', 'images', 'Images', 'img', 'imgs')


def read(files: Files, out: Path) -> Table | None:
    """The annotated images of ``files``; None if there is no XML file of Pascal VOC."""
    names = files.ending('.xml')
    if not any(files.mention(name, b'<annotation>', b'<annotation ') for name in names):
        return None
    notes: list[str] = []
    parts: dict[str, list[Entry]] = defaultdict(list)
    broken: dict[str, list[str]] = defaultdict(list)
    log, counts, listed = ShapeLog(), Counter[str](), in_parts(files, names, notes)
    for part, name in with_progress(listed, 'reading XML files'):
        try:
            root = read_voc(files.path(name))
            image, objects = _image(files, name, root, part), boxes_of(root, name, log, counts)
            entry = Entry(image, size=size_of(root, files.path(image), objects, counts), objects=objects)
        except Broken as error:
            broken[str(error)].append(name)
        else:
            parts[part or part_in(posixpath.dirname(image)) or 'all'].append(entry)
    leave_out(broken, len(listed), f'XML files below {files.root}', notes)
    log.tell(files.root, notes)
    notes += [f'{count} {what}' for what, count in counts.items() if count]
    entries = [entry for its in parts.values() for entry in its]
    settle_corners([each for entry in entries for each in entry.objects], notes)
    folders = {posixpath.dirname(entry.image) for entry in entries}
    stems = {posixpath.basename(name)[:-4] for name in names}
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
