"""What annotation tools draw, as COCO's polygons and run lengths; broken and refused shapes are counted."""
import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from dwnet.errors import UserError, some

from .sizes import read_sizes
from .table import leave_out

_LARGEST = 100_000  # pixels
_CORNERS = 128  # of the polygon in the place of an ellipse: up to a radius of 1,600 pixels it is half a pixel off


class Broken(ValueError):
    """What is wrong with a shape or an annotation file, in words that follow the name."""


class NoArea(ValueError):
    """The kind of a shape that covers no pixels, such as ``'line'``."""


class ShapeLog:
    """Counts shapes, and keeps the names of those that are broken."""

    def __init__(self) -> None:
        self._faults: dict[str, list[str]] = defaultdict(list)
        self._without_area: Counter[str] = Counter()
        self._total = 0

    @contextlib.contextmanager
    def shape(self, name: str) -> Iterator[None]:
        """Around the reading of a shape: an error leaves out this shape alone."""
        self._total += 1
        try:
            yield
        except NoArea as error:
            self._without_area[str(error)[:50]] += 1
        except Broken as error:
            self._faults[str(error)].append(name)
        except Exception:  # a file may hold anything
            self._faults['of another form'].append(name)

    def tell(self, root: Path, notes: list[str]) -> None:
        """Says in notes what is left out.

        Raises:
            UserError: If many shapes are broken, or none covers pixels.
        """
        leave_out(self._faults, self._total, f'shapes below {root}', notes)
        without_area = self._without_area.total()
        kinds = some((f'{count} {kind}' for kind, count in self._without_area.most_common()), 10)
        if without_area and without_area == self._total:
            raise UserError(f'all {without_area} shapes below {root} cover no pixels ({kinds}): draw boxes or polygons')
        if without_area:
            notes.append(f'{without_area} of {self._total} shapes cover no pixels and are left out ({kinds})')


def corners(points: Any, least: int = 3) -> np.ndarray:
    """Points as (N, 2), x and y in pixels.

    Raises:
        Broken: If there are too few, or one cannot be in an image.
    """
    array = np.asarray(points, float).reshape(-1, 2)
    if len(array) < least:
        raise Broken(f'with fewer than {least} points')
    if not (np.abs(array) <= _LARGEST).all():  # NaN fails, too
        raise Broken('with a point far outside of the image')
    return array


def rectangle(points: np.ndarray, degrees: float = 0) -> np.ndarray:
    """The four corners of the upright rectangle around points, turned clockwise about its centre."""
    (left, top), (right, bottom) = points.min(0), points.max(0)
    if right <= left or bottom <= top:
        raise Broken('without an area')
    return _turned(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), degrees)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> np.ndarray:
    """A polygon in the place of an ellipse, turned clockwise about its centre."""
    if not (radius_x > 0 and radius_y > 0):
        raise Broken('without an area')
    angles = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
    points = np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], 1)
    return _turned(corners(points), degrees)


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    if not degrees:
        return points
    angle, centre = math.radians(degrees), (points.min(0) + points.max(0)) / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return corners((points - centre) @ turn + centre)


def run_lengths(mask: Image.Image | np.ndarray, left: int, top: int, size: tuple[int, int]) -> dict:
    """COCO's run lengths of an image of ``size`` that is empty outside of a mask."""
    width, height = mask.size if isinstance(mask, Image.Image) else mask.shape[::-1]
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise Broken('with a mask that reaches out of the image')
    whole = np.zeros(size[::-1], np.uint8, order='F')
    whole[top:top + height, left:left + width] = np.asarray(mask) != 0
    if not whole.any():
        raise Broken('without an area')
    return _as_text(coco_mask.encode(whole))


class Shape(NamedTuple):
    """A shape that a tool has drawn.

    Attributes:
        label: The name of its class.
        outline: The corners of a polygon, (N, 2), or run lengths.
        group: Shapes of the same label and group are one object; None is no group.
        kind: ``'box'``, ``'turned box'`` or ``'outline'``.
    """
    label: str
    outline: np.ndarray | dict
    group: str | None = None
    kind: str = 'outline'


def objects_of(shapes: Iterable[Shape], size: tuple[int, int]) -> list[dict]:
    """The objects of an image of ``size``; ``kind`` is that of their shapes."""
    of_object: dict[tuple, list[Shape]] = defaultdict(list)
    for number, shape in enumerate(shapes):
        of_object[shape.label, number if shape.group is None else shape.group].append(shape)
    return [dict(label=its[0].label, **_joined([shape.outline for shape in its], size),
                 kind=its[0].kind if len(its) == 1 else 'outline') for its in of_object.values()]


def _joined(outlines: Sequence[np.ndarray | dict], size: tuple[int, int]) -> dict:
    """Box and segmentation of one object: polygons, or run lengths if one outline is a mask."""
    polygons = [outline for outline in outlines if not isinstance(outline, dict)]
    if len(polygons) == len(outlines):
        points = np.concatenate(polygons)
        return dict(bbox=[*points.min(0).tolist(), *np.ptp(points, 0).tolist()],
                    segmentation=[polygon.ravel().tolist() for polygon in polygons])
    masks = [outline if isinstance(outline, dict) else coco_mask.frPyObjects([outline.ravel().tolist()], *size[::-1])[0]
             for outline in outlines]
    mask = coco_mask.merge(masks)
    return dict(bbox=coco_mask.toBbox(mask).tolist(), segmentation=_as_text(mask))


def _as_text(rle: dict) -> dict:
    return dict(size=list(map(int, rle['size'])), counts=rle['counts'].decode())


def settle_boxes(objects: list[dict], notes: list[str]) -> None:
    """Boxes alone have no masks; among other shapes they have, as in the exports of the tools.

    Takes ``kind`` out of the objects. A turned box is a polygon, or among upright boxes the box around it.
    """
    kinds = Counter(each.pop('kind') for each in objects)
    if kinds['box'] and not kinds['outline']:
        for each in objects:
            del each['segmentation']
        if kinds['turned box']:
            notes.append(f"{kinds['turned box']} of {len(objects)} boxes are turned; upright boxes around them count")
    elif kinds['box']:
        notes.append(f"{kinds['box']} of {len(objects)} objects are boxes, and the others have outlines: the mask of a "
                     'box is the whole box')


def size_of(image: Path, written: tuple[Any, Any]) -> tuple[int, int]:
    """Width and height of what a tool has annotated: as written, or else those of the upright image.

    Of a photograph that EXIF turns, both orders may be written; they tell which pixels the annotation is of.

    Raises:
        Broken: If the image has another size; such as one that was scaled after it was labelled.
    """
    sizes = read_sizes(image)
    if sizes is None:
        raise Broken('whose image cannot be read')
    if not all(isinstance(side, int) and side > 0 for side in written):
        return sizes.upright
    if written not in sizes:
        raise Broken('with another size than the image')
    return written
