"""CVAT's annotations: XML files in the form "CVAT for images 1.1", the images in a folder beside each.

Polygons and masks with the same label in the same group are one object, as in CVAT's exports to COCO.
"""
import posixpath
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from dwnet.errors import UserError, some

from . import shapes
from .files import Files, part_in, with_progress
from .shapes import Broken, NoArea, Shape, ShapeLog, objects_of, settle_boxes, size_of
from .table import Entry, Table, leave_out, note_unlabelled, with_numbers
from .xml_file import read_xml

NAME = 'cvat'
NEEDS = 'an XML file of CVAT (CVAT for images 1.1) with its images'


def read(files: Files, out: Path) -> Table | None:
    """The annotated images of ``files``; None if there is no CVAT file."""
    names = [name for name in files.ending('.xml') if files.mention(name, b'<annotations')]
    if not names:
        return None
    parts: dict[str, list[Entry]] = defaultdict(list)
    log, notes, faults, order, total = ShapeLog(), [], defaultdict(list), [], 0
    if others := sorted(set(files.ending('.xml')) - set(names)):
        notes.append(f'{len(others)} XML files are none of CVAT and are left out: {some(others)}')
    for name in names:
        root = _read_file(files.path(name))
        order += [label.findtext('name') for label in root.iterfind('meta//label')]
        images = root.findall('image')
        total += len(images)
        for image in with_progress(images, f'reading {name}'):
            written = image.get('name', '')
            subset = image.get('subset') or root.findtext('meta/task/subset') or ''
            places = (subset, posixpath.dirname(name), posixpath.dirname(written))
            part = next((part for place in places if (part := part_in(place))), 'all')
            try:
                parts[part].append(_entry(image, _image_of(written, subset, part, name, files), files, log))
            except Broken as error:
                faults[str(error)].append(f'{written} in {name}')
    leave_out(faults, total, f'images in XML files below {files.root}', notes)
    log.tell(files.root, notes)
    note_unlabelled(files, parts, 'entry in an XML file', notes)
    settle_boxes([each for entries in parts.values() for entry in entries for each in entry.objects], notes)
    return with_numbers(f'CVAT ({some(names)})', parts, notes, order)


def _read_file(path: Path) -> Element:
    try:
        root = read_xml(path)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} is no whole file of CVAT ({error}); export it again') from error
    if root.find('track') is not None:
        raise UserError(f'{path} holds the tracks of a video; export it as "CVAT for images 1.1", with images')
    return root


def _image_of(written: str, subset: str, part: str, name: str, files: Files) -> str:
    folder = posixpath.dirname(name)
    places = (posixpath.join(folder, 'images', subset), posixpath.join(folder, 'images'), folder)
    near = next((place for place in places if posixpath.normpath(f'{place}/{written}') in files), folder)
    found = files.locate(written, near, part)
    if found is None:
        raise Broken('whose file is missing')
    return found


def _entry(image: Element, name: str, files: Files, log: ShapeLog) -> Entry:
    size = size_of(files.path(name), tuple(int(side) if side.isdecimal() else 0 for side in (
        image.get('width', ''), image.get('height', ''))))
    return Entry(name, size=size, objects=objects_of(_shapes(image, size, name, log), size))


def _shapes(image: Element, size: tuple[int, int], name: str, log: ShapeLog) -> Iterator[Shape]:
    for number, shape in enumerate(image, 1):
        if shape.tag == 'tag' or shape.get('outside') == '1':  # a label of the image; an object beyond its edge
            continue
        with log.shape(f'shape {number} of {name}'):
            if not (label := shape.get('label')):
                raise Broken('without a label')
            if shape.tag == 'box':
                yield Shape(label, _outline(shape, size), kind='turned box' if _degrees(shape) else 'box')
            else:
                yield Shape(label, _outline(shape, size), shape.get('group_id'))


def _degrees(shape: Element) -> float:
    return float(shape.get('rotation', 0)) % 360


def _outline(shape: Element, size: tuple[int, int]) -> np.ndarray | dict:
    if shape.tag == 'box':
        return shapes.rectangle(shapes.corners(_numbers(shape, 'xtl', 'ytl', 'xbr', 'ybr'), least=2), _degrees(shape))
    if shape.tag == 'polygon':
        return shapes.corners([point.split(',') for point in shape.attrib['points'].split(';')])
    if shape.tag == 'ellipse':
        return shapes.ellipse(*_numbers(shape, 'cx', 'cy', 'rx', 'ry'), _degrees(shape))
    if shape.tag != 'mask':
        raise NoArea(shape.tag)
    left, top, width, height = map(int, _numbers(shape, 'left', 'top', 'width', 'height'))
    counts = np.array(shape.attrib['rle'].split(','), int)  # row by row, empty pixels first
    if not (0 < width <= size[0] and 0 < height <= size[1]) or counts.min() < 0 or counts.sum() != width * height:
        raise Broken('with a mask of another size than its box')
    return shapes.run_lengths(np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width), left, top, size)


def _numbers(shape: Element, *names: str) -> list[float]:
    return [float(shape.attrib[name]) for name in names]
