"""The content of a COCO file: what tools leave out is computed, what is broken is logged and left out."""
import contextlib
import itertools
import json
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from dwnet.errors import UserError, some

from .box_forms import in_coco_form
from .files import most_left_out

# Pixels. Millions in a polygon make pycocotools overflow its memory; infinity in a box, torchvision's RoI align.
_LARGEST = 100_000
OWN = dict(written_by='dwnet')  # in a file with boxes of a known form


def read_coco(path: str) -> dict[str, Any]:
    """The content of an annotation file as :func:`repaired` leaves it.

    Raises:
        UserError: If the file is no COCO file, or its content cannot be repaired.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        content = {**content, 'images': list(content['images']), 'categories': list(content['categories']),
                   'annotations': list(content.get('annotations', ()))}  # test sets are published without
    except Exception as error:  # a broken file may raise anything
        reason = f'{error} is missing' if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise UserError(
            f'{path} is no whole COCO annotation file ({reason}); make it again, or copy it again') from error
    return repaired(content, path)


def repaired(content: dict[str, Any], where: str) -> dict[str, Any]:
    """A copy with whole annotations; the log says in a line what was mended, and lists what is left out.

    Boxes are computed from masks, and areas from masks or boxes. Ids are numbers where they can be, and those of
    annotations begin at 1. Boxes are [x, y, width, height] in pixels. Each name has one category.

    Args:
        content: Lists of images, categories and annotations in COCO's form. With :data:`OWN`, boxes and polygons stay
            in their form, and the log does not say what was mended.
        where: The file, for messages.

    Raises:
        UserError: If more than ten and more than 1 % of the images, categories or annotations are broken, if the form
            of the boxes is not certain, or if a part of the annotations has masks and another has boxes alone.
    """
    mended: Counter[str] = Counter()
    is_own = OWN.items() <= content.items()
    parts = {part: [dict(entry) if isinstance(entry, dict) else entry for entry in content[part]]
             for part in ('images', 'categories', 'annotations')}
    _simplify_ids(parts, mended)
    _simplify_sizes(parts['images'], mended)
    images = _sound(parts['images'], _fault_of_image, f'images of {where}')
    categories = _sound(parts['categories'], _fault_of_category, f'categories of {where}')
    sizes = {image['id']: (image['width'], image['height']) for image in images}
    annotations = parts['annotations']
    _complete(annotations, sizes, None if is_own else where, mended)

    masks = _have_masks(annotations, where)
    known = {category['id'] for category in categories}

    def fault_of_annotation(annotation: dict) -> str | None:
        if annotation['image_id'] not in sizes:
            return 'of an unknown image'
        if annotation['category_id'] not in known:
            return 'of an unknown category'
        if annotation['iscrowd'] not in (0, 1):
            return 'with an iscrowd that is neither 0 nor 1'
        size = sizes[annotation['image_id']]
        fault = _fault_of_box(annotation['bbox'], *size)
        return fault or (_fault_of_mask(annotation.get('segmentation'), *size) if masks else None)

    annotations = _sound(annotations, fault_of_annotation, f'annotations of {where}')
    categories = _join_names(categories, annotations, mended)
    if any(not isinstance(annotation['id'], int) or annotation['id'] < 1 for annotation in annotations):
        for number, annotation in enumerate(annotations, 1):  # COCO's evaluation takes 0 for "no match"
            annotation['id'] = number
        mended['ids of annotations numbered from 1'] = len(annotations)
    what = '; '.join(f'{repair} ({count})' for repair, count in mended.items() if count)
    if what and not is_own:
        print_log(f'{where} is mended as it is read: {what}', logger='current')
    return {**content, 'images': images, 'annotations': annotations, 'categories': categories}


def with_classes(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A copy that has a category for each name; the categories that are new have no annotations."""
    ids = {category['name']: category['id'] for category in content['categories']}
    kind = str if any(isinstance(i, str) for i in ids.values()) else int  # COCO's evaluation sorts the ids
    free = (i for i in map(kind, itertools.count(1)) if i not in ids.values())
    new = [dict(id=next(free), name=name) for name in dict.fromkeys(names) if name not in ids]
    return {**content, 'categories': [*content['categories'], *new]}


# --- What is mended ------------------------------------------------------------------------------------


def _simplify_ids(parts: dict[str, list], mended: Counter[str]) -> None:
    """Ids as whole numbers; if an image or category has a name as its id, all have text, so that ids can be sorted."""
    for part, reference in (('images', 'image_id'), ('categories', 'category_id'), ('annotations', '')):
        as_text = reference and any(isinstance(_as_number(entry.get('id')), str)
                                    for entry in parts[part] if isinstance(entry, dict))
        for entries, key in ((parts[part], 'id'), (parts['annotations'], reference)):
            for entry in entries:
                if not isinstance(entry, dict) or key not in entry:
                    continue
                value = _as_number(entry[key])
                value = str(value) if as_text and isinstance(value, int) else value
                if type(value) is not type(entry[key]):
                    mended[f"ids turned into {'text' if as_text else 'whole numbers'}"] += 1
                    entry[key] = value


def _simplify_sizes(images: list, mended: Counter[str]) -> None:
    """Width and height as whole numbers; pandas writes 640.0."""
    for image in images:
        for side in ('width', 'height') if isinstance(image, dict) else ():
            if type(value := _as_number(image.get(side))) is not type(image.get(side)):
                image[side] = value
                mended['widths and heights turned into whole numbers'] += 1


def _as_number(value: Any) -> Any:
    """'12' and 12.0 → 12; other ids, such as '012', stay as they are."""
    if isinstance(value, str) and len(value) < 19 and value.isascii() and value.isdigit() and (
            value == '0' or value[0] != '0'):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _complete(annotations: list, sizes: dict[Any, tuple[int, int]], where: str | None, mended: Counter[str]) -> None:
    """Computes what annotations lack from what they have; the forms of boxes are known if ``where`` is None."""
    whole = []
    for annotation in annotations:
        with contextlib.suppress(Exception):  # of another form, which is named later
            if annotation['image_id'] in sizes:
                _simplify_flags(annotation, mended)
                whole.append(annotation)
    if where is not None:
        _scale_polygons(whole, sizes, mended)
        _convert_boxes(whole, sizes, where, mended)
    for annotation in whole:
        with contextlib.suppress(Exception):
            _complete_one(annotation, *sizes[annotation['image_id']], mended)


def _simplify_flags(annotation: dict, mended: Counter[str]) -> None:
    mask = annotation.get('segmentation')
    if not mask or isinstance(mask, list) and not any(mask):  # such as [[]]
        annotation.pop('segmentation', None)
    crowd = annotation.get('iscrowd')
    if crowd is None:
        annotation['iscrowd'] = 0
        mended['iscrowd set to 0'] += 1
    elif crowd in (0, 1, '0', '1'):
        annotation['iscrowd'] = int(crowd)


def _scale_polygons(annotations: list[dict], sizes: dict[Any, tuple[int, int]], mended: Counter[str]) -> None:
    """Polygons relative to the image → pixels; a file whose polygons all lie in the first pixel has none in pixels."""
    having = [annotation for annotation in annotations if isinstance(annotation.get('segmentation'), list)]
    try:
        if not having or any(not 0 <= value <= 1 for annotation in having
                             for polygon in annotation['segmentation'] for value in polygon):
            return
    except TypeError:  # no numbers
        return
    for annotation in having:
        size = sizes[annotation['image_id']]
        annotation['segmentation'] = [[value * size[i % 2] for i, value in enumerate(polygon)]
                                      for polygon in annotation['segmentation']]
        annotation['area'] = None  # in which unit is not known
    mended['polygons relative to the image turned into pixels'] += len(having)


def _convert_boxes(annotations: list[dict], sizes: dict[Any, tuple[int, int]], where: str,
                   mended: Counter[str]) -> None:
    """Boxes in another form → COCO's; boxes that are none in any form stay as they are."""
    having = [annotation for annotation in annotations if _is_box(annotation.get('bbox'))]
    before = np.array([annotation['bbox'] for annotation in having], float).reshape(-1, 4)
    of_images = np.array([sizes[annotation['image_id']] for annotation in having], float).reshape(-1, 2)
    after, form = in_coco_form(before, of_images, where)
    if not form:
        return
    for annotation, box in zip(having, after.tolist()):
        annotation.update(bbox=box, area=None)  # the area may have been computed from the box
    mended[f'boxes written as {form} turned into [x, y, width, height]'] += len(having)


def _is_box(box: Any) -> bool:
    return (isinstance(box, list) and len(box) == 4
            and all(isinstance(value, (int, float)) and abs(value) <= _LARGEST for value in box)
            and box[2] > 0 and box[3] > 0)


def _complete_one(annotation: dict, width: int, height: int, mended: Counter[str]) -> None:
    box, area, mask = (annotation.get(key) for key in ('bbox', 'area', 'segmentation'))
    if _is_box(box) and isinstance(mask, dict) and list(mask['size']) != [height, width]:
        mask = annotation['segmentation'] = _fit(mask, box, width, height)
        mended['mask cut or padded to the size of its image'] += list(mask['size']) == [height, width]
    no_box = not box or len(box) == 4 and not (box[2] and box[3])
    no_area = not (isinstance(area, (int, float)) and 0 < area < math.inf)
    if not (no_box or no_area):
        return
    if not mask or _fault_of_mask(mask, width, height):
        mask = None
    if no_box and mask:
        annotation['bbox'] = _box_of(mask, width, height)
        mended['box computed from the mask'] += 1
    if no_area and not _fault_of_box(annotation['bbox'], width, height):
        area = float(coco_mask.area(_rle_of(mask, width, height))) if mask else 0.
        annotation['area'] = area or annotation['bbox'][2] * annotation['bbox'][3]
        mended[f"area computed from the {'mask' if area else 'box'}"] += 1


def _fit(rle: dict, box: list[float], width: int, height: int) -> dict:
    """An RLE of another size than its image in the size of the image, if the box says that both have one origin."""
    rows, columns = rle['size']
    if not (0 < rows <= 2 * height and 0 < columns <= 2 * width):  # a damaged size would fill the memory
        return rle
    own = coco_mask.toBbox(_rle_of(rle, columns, rows))
    if np.abs(own - box).max() > 1 or own[0] + own[2] > width or own[1] + own[3] > height:
        return rle
    pixels = np.zeros((height, width), np.uint8, order='F')
    whole = coco_mask.decode(_rle_of(rle, columns, rows))[:height, :width]
    pixels[:whole.shape[0], :whole.shape[1]] = whole
    fitted = coco_mask.encode(pixels)
    return {**fitted, 'counts': fitted['counts'].decode()}


def _box_of(segmentation: list | dict, width: int, height: int) -> list[float]:
    if isinstance(segmentation, dict):
        return coco_mask.toBbox(_rle_of(segmentation, width, height)).tolist()
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in _polygons(segmentation)])
    return [*points.min(0).tolist(), *np.ptp(points, 0).tolist()]


def _rle_of(segmentation: list | dict, width: int, height: int) -> dict:
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(_polygons(segmentation), height, width))
    compressed = isinstance(segmentation['counts'], str)
    return segmentation if compressed else coco_mask.frPyObjects(segmentation, height, width)


def _polygons(segmentation: list) -> list[list[float]]:
    """The polygons that mmdet reads, too."""
    return [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]


def _join_names(categories: list[dict], annotations: list[dict], mended: Counter[str]) -> list[dict]:
    """One category for each name, the first; as in files that were merged."""
    first: dict[str, Any] = {}
    for category in categories:
        first.setdefault(category['name'], category['id'])
    to = {category['id']: first[category['name']] for category in categories}
    if len(first) < len(categories):
        for annotation in annotations:
            annotation['category_id'] = to[annotation['category_id']]
        mended['categories of the same name joined'] = len(categories) - len(first)
    return [category for category in categories if to[category['id']] == category['id']]


# --- What is broken ------------------------------------------------------------------------------------


def _have_masks(annotations: list, where: str) -> bool:
    having = [bool(annotation.get('segmentation')) for annotation in annotations if isinstance(annotation, dict)]
    masks, without = any(having), having.count(False)
    if masks and without > most_left_out(len(annotations)):
        raise UserError(f'{without} of {len(annotations)} annotations of {where} have a box and no mask, the others '
                        'have both: draw masks for those, too, or leave out every segmentation to train with boxes')
    return masks


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
    listed = '; '.join(f'{fault}: {some(names, 10)}' for fault, names in faults.items())
    if total > most_left_out(len(entries)) or entries and not sound:
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


def _fault_of_box(box: list[float], width: int, height: int) -> str | None:
    x, y, w, h = box
    if not all(abs(value) <= _LARGEST for value in (x, y, w, h)):  # NaN fails, too
        return 'with a box far outside the image'
    if w < 1 or h < 1:
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
    if not _polygons(segmentation or []):
        return 'without a mask'
    if not all(abs(value) <= _LARGEST for polygon in segmentation for value in polygon):  # NaN fails, too
        return 'with a polygon far outside the image'
    return None
