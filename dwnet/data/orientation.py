"""The orientation in EXIF: annotations of a photograph's unturned pixels are turned along with the photograph.

A camera that is held upright writes the rows of its sensor, and notes in EXIF how a viewer has to turn them. Readers
turn the image; some annotation tools do not. Width and height in the annotations tell which pixels a tool saw, if the
note turns the image by 90° and the image is no square.
"""
from enum import Enum
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from .sizes import read_sizes

# Orientation → whether rows and columns are exchanged, and whether the result is mirrored in x and in y
_TURNS = {1: (False, False, False), 2: (False, True, False), 3: (False, True, True), 4: (False, False, True),
          5: (True, False, False), 6: (True, True, False), 7: (True, True, True), 8: (True, False, True)}
BACK = {**{orientation: orientation for orientation in _TURNS}, 6: 8, 8: 6}  # orientation → that which undoes it


class Annotated(Enum):
    """Which pixels an annotation is of."""
    UPRIGHT = 'those of the image as it is read'
    UNTURNED = 'those of the file, before the image is turned'
    UNCLEAR = 'the sizes of both are the same'


def compare(path: str, width: int, height: int) -> tuple[int, Annotated]:
    """The orientation in a file's header, and which pixels an annotation of ``width`` and ``height`` is of."""
    sizes = read_sizes(Path(path))
    if sizes is None or sizes.orientation not in _TURNS or sizes.orientation == 1:
        return 1, Annotated.UPRIGHT  # the transform that reads the image names a damaged file
    if sizes.unturned == sizes.upright:
        return sizes.orientation, Annotated.UNCLEAR
    return sizes.orientation, Annotated.UNTURNED if sizes.unturned == (width, height) else Annotated.UPRIGHT


def turn_points(points: np.ndarray, orientation: int, width: int, height: int) -> np.ndarray:
    """Turns points, (…, 2) as x and y, along with an image of ``width`` and ``height``."""
    swap, mirror_x, mirror_y = _TURNS[orientation]
    x, y = points[..., 0], points[..., 1]
    if swap:
        x, y, width, height = y, x, height, width
    return np.stack([width - x if mirror_x else x, height - y if mirror_y else y], -1)


def turn_boxes(boxes: np.ndarray, orientation: int, width: int, height: int) -> np.ndarray:
    """Turns boxes, (N, 4) as left, top, right and bottom."""
    corners = turn_points(boxes.reshape(-1, 2, 2), orientation, width, height)
    return np.concatenate([corners.min(1), corners.max(1)], 1)


def turn_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns images or masks, (…, height, width)."""
    swap, mirror_x, mirror_y = _TURNS[orientation]
    pixels = pixels.swapaxes(-1, -2) if swap else pixels
    return pixels[..., ::-1 if mirror_y else 1, ::-1 if mirror_x else 1]


def turn_segmentation(segmentation: list | dict, orientation: int, width: int, height: int) -> list | dict:
    """Turns polygons or an RLE in COCO's form."""
    if isinstance(segmentation, list):
        return [turn_points(np.reshape(polygon, (-1, 2)), orientation, width, height).ravel().tolist()
                if len(polygon) % 2 == 0 else polygon for polygon in segmentation]
    rle = segmentation
    if isinstance(rle['counts'], list):
        rle = coco_mask.frPyObjects(rle, height, width)
    turned = coco_mask.encode(np.asfortranarray(turn_pixels(coco_mask.decode(rle), orientation)))
    return {**turned, 'counts': turned['counts'].decode()}
