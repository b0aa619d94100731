"""COCO annotations with what is broken named and left out, before it stops a training or crashes a library."""
import json
import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmengine.fileio import get_local_path
from mmengine.logging import print_log
from mmengine.registry import METRICS

from dwnet.errors import UserError
from dwnet.registry import DATASETS

# Pixels. With millions in a polygon pycocotools overflows its memory, with infinity in a box torchvision's RoI align.
_LARGEST = 100_000


def read_coco(path: str) -> dict[str, Any]:
    """The content of an annotation file, less what is broken, which the log names.

    Raises:
        UserError: If it is no COCO file, or more than 1 % of its images, categories or annotations are broken, and
            more than ten.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        images, categories = list(content['images']), list(content['categories'])
        annotations = list(content.get('annotations', ()))  # a test set's are not published
    except Exception as error:  # whatever a broken file leads to
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
        annotation.setdefault('iscrowd', 0)  # COCO's evaluation reads it, and some tools write none
    if any(annotation['id'] == 0 for annotation in annotations):
        print_log(f"{path}: annotation ids start at 0, which COCO's evaluation takes for 'no match'; number them "
                  'from 1', logger='current', level=logging.WARNING)
    return {**content, 'images': images, 'annotations': annotations, 'categories': categories}


def _sound(entries: list, fault_of: Callable[[dict], str | None], what: str) -> list[dict]:
    """The entries that have an id of their own and no fault."""
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
        except Exception:  # types that cannot be counted with
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
    if not all(abs(value) <= _LARGEST for value in (x, y, w, h)):  # nor NaN
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
    if not all(abs(value) <= _LARGEST for polygon in segmentation for value in polygon):  # nor NaN
        return 'with a polygon far outside the image'
    return None


class CheckedCOCO(COCO):
    """mmdet's reader, on what :func:`read_coco` leaves."""

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        self.dataset = read_coco(annotation_file)
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset``; broken images and annotations are named and left out."""
    COCOAPI = CheckedCOCO

    def filter_data(self) -> list[dict]:
        kept = super().filter_data()
        if not kept:
            raise UserError(f'{self.ann_file} leaves no image that is large enough and has an object of a class of the '
                            'config')
        return kept


@METRICS.register_module()
class CheckedCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric`` on the annotations that :class:`CheckedCocoDataset` has, and no others."""

    def __init__(self, ann_file: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=self.backend_args) as path:
                self._coco_api = CheckedCOCO(path)
