"""LabelMe's annotations: a JSON file an image, beside the image or in a folder of their own.

X-AnyLabeling and others write the same keys. Shapes with the same label and the same ``group_id`` are one object.
"""
import base64
import io
import json
import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dwnet.errors import UserError

from . import shapes
from .files import Files, part_in, with_progress
from .own import write_whole
from .shapes import Broken, NoArea, Shape, ShapeLog, objects_of, settle_boxes, size_of
from .table import Entry, Table, leave_out, note_unlabelled, with_numbers

NAME = 'labelme'
NEEDS = 'LabelMe files (a .json for each image)'
IGNORED, BACKGROUND = '__ignore__', '_background_'  # LabelMe's own labels: not looked at, and no object


def read(files: Files, out: Path) -> Table | None:
    """The annotated images of ``files``; None if there is no LabelMe file."""
    return regions(files, out, without=(IGNORED, BACKGROUND))


def regions(files: Files, out: Path, without: Collection[str] = ()) -> Table | None:
    """The annotated images as :func:`read` finds them, with the shapes of LabelMe's own labels, too."""
    names = files.ending('.json')
    if not any(files.mention(name, b'"shapes"') for name in names):
        return None
    parts: dict[str, list[Entry]] = defaultdict(list)
    log, notes, faults = ShapeLog(), [], defaultdict(list)
    for name in with_progress(names, 'reading LabelMe files'):
        try:
            entry = _read_file(name, files, out, log)
        except UserError:
            raise
        except Broken as error:
            faults[str(error)].append(name)
        except Exception:  # a file may hold anything
            faults['without the form of LabelMe'].append(name)
        else:
            places = [name, entry.image] if entry.image in files else [name]
            part = next((part for place in places if (part := part_in(posixpath.dirname(place)))), 'all')
            objects = [each for each in entry.objects if each['label'] not in without]
            parts[part].append(entry._replace(objects=objects))
    leave_out(faults, len(names), f'JSON files below {files.root}', notes)
    log.tell(files.root, notes)
    note_unlabelled(files, parts, 'LabelMe file', notes)
    settle_boxes([each for entries in parts.values() for entry in entries for each in entry.objects], notes)
    return with_numbers('LabelMe', parts, notes)


def _read_file(name: str, files: Files, out: Path, log: ShapeLog) -> Entry:
    content = json.loads(files.path(name).read_bytes())
    drawn = list(content['shapes'])
    image = _image_of(content, name, files, out)
    size = size_of(files.path(image), (content.get('imageWidth'), content.get('imageHeight')))
    return Entry(image, size=size, objects=objects_of(_shapes(drawn, size, name, log), size))


def _image_of(content: dict, name: str, files: Files, out: Path) -> str:
    """The image: the file that is named, one called like the annotation file, or the content of ``imageData``."""
    folder, stem = posixpath.dirname(name), posixpath.splitext(name)[0]
    for written in (content.get('imagePath'), f'{posixpath.basename(stem)}.jpg'):
        if isinstance(written, str) and (found := files.locate(written, folder, part_in(folder))):
            return found
    if not content.get('imageData'):
        raise Broken('whose image is missing')
    data = base64.b64decode(content['imageData'])
    with Image.open(io.BytesIO(data)) as image:
        ending = str(image.format).lower()
    return write_whole(out / 'images' / f'{stem}.{ending}', data)


def _shapes(drawn: list, size: tuple[int, int], name: str, log: ShapeLog) -> Iterator[Shape]:
    for number, shape in enumerate(drawn, 1):
        with log.shape(f'shape {number} of {name}'):
            label, group = shape['label'], shape.get('group_id')
            if not isinstance(label, (str, int)) or label == '':
                raise Broken('without a label')
            yield Shape(str(label), _outline(shape, size), None if group is None else f'group {group}',
                        'box' if shape.get('shape_type') == 'rectangle' else 'outline')


def _outline(shape: dict, size: tuple[int, int]) -> np.ndarray | dict:
    kind = shape.get('shape_type') or 'polygon'
    if kind in ('polygon', 'rotation', 'oriented_rectangle'):
        return shapes.corners(shape['points'])
    if kind == 'rectangle':
        return shapes.rectangle(shapes.corners(shape['points'], least=2))  # two corners in any order, or all four
    if kind == 'circle':
        centre, edge = shapes.corners(shape['points'], least=2)
        return shapes.ellipse(*centre, *[np.hypot(*(edge - centre))] * 2)
    if kind != 'mask':
        raise NoArea(kind)
    left, top = map(int, shapes.corners(shape['points'], least=1).min(0))
    with Image.open(io.BytesIO(base64.b64decode(shape['mask']))) as mask:
        return shapes.run_lengths(mask, left, top, size)
