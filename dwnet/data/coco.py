"""COCO annotations; broken entries are logged and left out.

The annotation files lie anywhere below the root, such as ``annotations/instances_train2017.json`` or
``train/_annotations.coco.json``; their names or folders tell the part.
"""
import json
import logging
import posixpath
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from dwnet.errors import UserError, some

from .files import Files, part_in
from .table import Entry, Table, without_missing

NAME = 'coco'
NEEDS = 'a COCO file (.json), in the folder annotations'
# Pixels. Millions in a polygon make pycocotools overflow its memory; infinity in a box, torchvision's RoI align.
_LARGEST = 100_000


def read_coco(path: str) -> dict[str, Any]:
    """The content of an annotation file without broken entries, which the log lists.

    Raises:
        UserError: If the file is no COCO file, or more than ten and more than 1 % of its images, categories or
            annotations are broken.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        images, categories = list(content['images']), list(content['categories'])
        annotations = list(content.get('annotations', ()))  # test sets are published without
    except Exception as error:  # a broken file may raise anything
        reason = f'{error} is missing' if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise UserError(
            f'{path} is no whole COCO annotation file ({reason}); make it again, or copy it again') from error
    images = _sound(images, _fault_of_image, f'images of {path}')
    categories = _sound(categories, _fault_of_category, f'categories of {path}')
    sizes = {image['id']: (image['width'], image['height']) for image in images}
    known = {category['id'] for category in categories}
    having = [bool(annotation.get('segmentation')) for annotation in annotations if isinstance(annotation, dict)]
    masks, without = any(having), having.count(False)
    if masks and without > max(10, len(annotations) // 100):
        raise UserError(f'{without} of {len(annotations)} annotations of {path} have a box and no mask, the others '
                        'have both: draw masks for those, too, or leave out every segmentation to train with boxes')

    def fault_of_annotation(annotation: dict) -> str | None:
        if annotation['image_id'] not in sizes:
            return 'of an unknown image'
        if annotation['category_id'] not in known:
            return 'of an unknown category'
        size = sizes[annotation['image_id']]
        fault = _fault_of_box(annotation, *size)
        return fault or (_fault_of_mask(annotation.get('segmentation'), *size) if masks else None)

    annotations = _sound(annotations, fault_of_annotation, f'annotations of {path}')
    for annotation in annotations:
        annotation.setdefault('iscrowd', 0)  # COCO's evaluation needs the key; some tools leave it out
    if any(annotation['id'] == 0 for annotation in annotations):
        print_log(f"{path}: annotation ids start at 0, which COCO's evaluation takes for 'no match'; number them "
                  'from 1', logger='current', level=logging.WARNING)
    return {**content, 'images': images, 'annotations': annotations, 'categories': categories}


def _sound(entries: list, fault_of: Callable[[dict], str | None], what: str) -> list[dict]:
    """The entries with a unique id and without a fault; the log lists the others."""
    sound, faults, seen = [], defaultdict(list), set()
    for number, entry in enumerate(entries):
        name = f'number {number}'
        try:
            name = entry['id']
            if not isinstance(name, (int, str)):
                fault = 'with an id that is none'
            elif name in seen:
                fault = 'with the id of another'
            else:
                fault = fault_of(entry)
            seen.add(name)
        except KeyError as error:
            fault = f'without {error}'
        except Exception:  # wrong types
            fault = 'of another form'
        if fault:
            faults[fault].append(str(name)[:50])
        else:
            sound.append(entry)
    total = len(entries) - len(sound)
    listed = '; '.join(f"{fault}: {', '.join(names[:1000])}{', …' if len(names) > 1000 else ''}"
                       for fault, names in faults.items())
    if total > max(10, len(entries) // 100) or entries and not sound:
        raise UserError(f'{total} of {len(entries)} {what} are broken ({listed}); mend or remove them')
    if total:
        print_log(f'{total} of {len(entries)} {what} are broken and left out ({listed})', logger='current',
                  level=logging.ERROR)
    return sound


def _fault_of_image(image: dict) -> str | None:
    if not isinstance(image['file_name'], str) or not image['file_name'] or '\0' in image['file_name']:
        return 'without a file name'
    if not all(isinstance(image[side], int) and 0 < image[side] <= _LARGEST for side in ('width', 'height')):
        return 'without a size'
    return None


def _fault_of_category(category: dict) -> str | None:
    return None if isinstance(category['name'], str) else 'without a name'


def _fault_of_box(annotation: dict, width: int, height: int) -> str | None:
    x, y, w, h = annotation['bbox']
    if not all(abs(value) <= _LARGEST for value in (x, y, w, h)):  # NaN fails, too
        return 'with a box far outside the image'
    if w < 1 or h < 1 or not annotation['area'] > 0:
        return 'with a box smaller than a pixel'
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return 'with a box outside the image'
    return None


def _fault_of_mask(segmentation: Any, width: int, height: int) -> str | None:
    if isinstance(segmentation, dict):
        if list(segmentation['size']) != [height, width]:
            return 'with a mask of another size than the image'
        counts = segmentation['counts']
        if not isinstance(counts, str) and (sum(counts) != width * height or min(counts) < 0):
            return 'with a mask that is none'
        return None
    polygons = [polygon for polygon in segmentation or [] if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not polygons:
        return 'without a mask'
    if not all(abs(value) <= _LARGEST for polygon in segmentation for value in polygon):  # NaN fails, too
        return 'with a polygon far outside the image'
    return None


# --- Below a folder --------------------------------------------------------------------------------------


def read(files: Files, out: Path) -> Table | None:
    """The annotated images of ``files``; None if there is no COCO file. A part may have several annotation files."""
    found = _coco_files(files)
    if not found:
        return None
    names = list(found)
    of_part = {name: part_in(name) for name in names}
    if None in of_part.values() and len(set(of_part.values())) > 1:
        raise UserError(f'{files.root} has the annotation files {some(names)}, and the name of '
                        f'{some(name for name in names if of_part[name] is None)} does not tell to which part it '
                        'belongs: call it like train, val or test, or put it into a folder called so')
    contents = {name: _read_coco(files.path(name)) for name in names}
    first = sorted(contents, key=lambda name: (of_part[name] not in ('train', None), name))
    used = {category['name'] for content in contents.values() for category in content['categories']
            if category['id'] in {each['category_id'] for each in content['annotations']}}
    classes = list(dict.fromkeys(category['name'] for name in first for category in contents[name]['categories']
                                 if category['name'] in used))  # some tools add a class above all
    table = Table(f'COCO ({some(names)})', classes, {})
    for name, content in contents.items():
        label = {category['id']: classes.index(category['name']) for category in content['categories']
                 if category['name'] in used}
        objects = defaultdict(list)
        for annotation in content['annotations']:
            kept = {key: value for key, value in annotation.items() if key not in ('id', 'image_id', 'category_id')}
            objects[annotation['image_id']].append({**kept, 'label': label[annotation['category_id']]})
        part = of_part[name] or 'all'
        entries = [Entry(image['file_name'], size=(image['width'], image['height']), objects=objects[image['id']])
                   for image in content['images']]

        def find(entry: Entry, near: str = posixpath.dirname(name), part: str = part) -> str | None:
            return files.locate(entry.image, near, part)

        entries = without_missing(entries, find, str(files.path(name)), table.notes)
        table.parts[part] = [*table.parts.get(part, []), *entries]
    return table


def _coco_files(files: Files) -> list[str]:
    """The JSON files with images and categories; COCO has captions and keypoints beside instances."""
    names = [name for name in files.ending('.json') if _looks_like_coco(files.path(name))]
    return [name for name in names if 'instances' in posixpath.basename(name)] or names


def _looks_like_coco(path: Path) -> bool:
    """Whether a file has COCO's key "images", by its first and its last MB, or has no other form's keys."""
    with path.open('rb') as file:
        head = file.read(2**20)
        file.seek(max(0, path.stat().st_size - 2**20))
        tail = file.read()
    return b'"images"' in head or b'"images"' in tail


def _read_coco(path: Path) -> dict:
    content = read_coco(str(path))
    for key in ('images', 'categories'):
        if not content[key]:
            raise UserError(f'{path} has no {key}; export it again, with images, categories and annotations')
    return content
