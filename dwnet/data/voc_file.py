"""An XML file of Pascal VOC: the objects of an image.

Pascal VOC counts pixels from 1, and both corners belong to a box: around an image of 500 × 375 pixels it has the
corners 1, 1, 500, 375. Many tools count from 0 up to the far edges: 0, 0, 500, 375. A corner of 0, or one with a
fraction, tells that a data set is counted so.
"""
import re
from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

from .shapes import Broken, ShapeLog, settle_boxes
from .sizes import read_sizes
from .xml_file import read_xml

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
_LARGEST = 100_000  # pixels


def read_voc(path: Path) -> Element:
    """The content of an XML file of Pascal VOC."""
    try:
        root = read_xml(path)
    except ValueError as error:
        raise Broken(f"whose XML is broken ({str(error).partition(':')[0]})") from error
    if root.tag != 'annotation':
        raise Broken('that are not of Pascal VOC')
    return root


def boxes_of(root: Element, name: str, log: ShapeLog, counts: Counter[str]) -> list[dict]:
    """The objects in a file, with ``bbox`` as left, top, right, bottom; the log keeps those that are broken.

    Args:
        root: The content of the file.
        name: Its name.
        log: The log of the data set.
        counts: What is odd → how often.
    """
    objects = []
    for number, thing in enumerate(root.iterfind('object'), start=1):
        with log.shape(f'object {number} of {name}'):
            objects.append(_object(thing, counts))
    return objects


def _object(thing: Element, counts: Counter[str]) -> dict:
    label = (thing.findtext('name') or '').strip()
    if not label:
        raise Broken('without a name')
    if thing.find('robndbox') is not None:
        raise Broken('with a turned box (robndbox)')
    left, top, right, bottom = _numbers([thing.findtext(f'bndbox/{corner}') for corner in _CORNERS],
                                        'without a whole box (bndbox)')
    counts['objects have their corners exchanged, which is mended'] += left > right or top > bottom
    difficult = (thing.findtext('difficult') or '').strip() in ('1', 'true')
    counts["objects are difficult: like COCO's crowds, they are neither learned nor scored"] += difficult
    found = dict(label=label, iscrowd=int(difficult),
                 bbox=[min(left, right), min(top, bottom), max(left, right), max(top, bottom)])
    polygon = thing.find('polygon')  # of Roboflow: x1, y1, x2, …
    if polygon is not None:
        keys = [f'{axis}{i}' for i in range(1, max(3, len(polygon) // 2) + 1) for axis in 'xy']
        found['segmentation'] = [_numbers([polygon.findtext(key) for key in keys], 'with a broken polygon')]
    return found


def _numbers(texts: list[str | None], fault: str) -> list[float]:
    try:
        numbers = [float(text or '') for text in texts]
    except ValueError:
        raise Broken(fault) from None
    if not all(abs(number) <= _LARGEST for number in numbers):  # NaN fails, too
        raise Broken('with corners that no image has')
    return numbers


def size_of(root: Element, image: Path, objects: list[dict], counts: Counter[str]) -> tuple[int, int]:
    """Width and height of what was annotated: as written, or those of the image as a viewer shows it.

    Raises:
        Broken: If the image was scaled after it was annotated.
    """
    sizes = read_sizes(image)
    if sizes is None:
        raise Broken('whose image cannot be read')
    texts = [(root.findtext(f'size/{side}') or '').strip() for side in ('width', 'height')]
    if not all(re.fullmatch('[0-9]{1,6}', text) and int(text) for text in texts):
        return sizes.upright
    written = int(texts[0]), int(texts[1])
    if written in sizes:
        return written
    width, height = sizes.upright
    same_shape = abs(width * written[1] - height * written[0]) <= max(written)
    inside = all(each['bbox'][2] <= width + 1 and each['bbox'][3] <= height + 1 for each in objects)
    if same_shape or not inside:
        raise Broken('with another size than the image')
    counts['XML files have a wrong size; their boxes fit the image'] += 1
    return sizes.upright


def settle_corners(objects: list[dict], notes: list[str]) -> None:
    """Turns corners into COCO's boxes, counted from 0; boxes among polygons have masks, too."""
    zero = sum(min(each['bbox']) < 1 or any(value % 1 for value in each['bbox']) for each in objects)
    first = 0 if zero else 1
    for each in objects:
        left, top, right, bottom = each['bbox']
        left, top = left - first, top - first
        each['bbox'] = [left, top, right - left, bottom - top]
        each['kind'] = 'outline' if 'segmentation' in each else 'box'
        each.setdefault('segmentation', [[left, top, right, top, right, bottom, left, bottom]])
    if zero:
        notes.append(f'{zero} boxes have a corner of 0 or with a fraction: pixels are counted from 0, not from 1')
    settle_boxes(objects, notes)
