"""Boxes in another form than COCO's: recognised when they cannot be COCO's, and turned into it.

COCO's form is [x, y, width, height] in pixels, x and y of the corner at the top left.
"""
import numpy as np

from dwnet.errors import UserError

# Form → the four numbers of a box as x, y, width and height
_READINGS = {
    '[x, y, width, height]': lambda a, b, c, d: (a, b, c, d),
    '[left, top, right, bottom]': lambda a, b, c, d: (a, b, c - a, d - b),
    '[x of the centre, y of the centre, width, height]': lambda a, b, c, d: (a - c / 2, b - d / 2, c, d)}
_COCO = next(iter(_READINGS))
_ROUNDING = 2  # pixels
# A box is not COCO's if it ends so far outside its image, as a share of the image's side; tools let boxes stick out a
# little. Boxes of another form are there if so many, as a share, are not COCO's.
_FAR, _MANY = .1, .1
_MOST = .95  # a form that fits so many boxes and not all is probably the right one


def in_coco_form(boxes: np.ndarray, sizes: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    """Boxes as [x, y, width, height] in pixels.

    Boxes are converted only where this is certain: the boxes cannot be COCO's, and exactly one other form puts every
    box inside its image.

    Args:
        boxes: As written, (N, 4).
        sizes: Width and height of each box's image, (N, 2).
        where: The file, for the error.

    Returns:
        The boxes, and the form in which they were written; empty if it is COCO's.

    Raises:
        UserError: If the boxes cannot be COCO's, and their form is not certain.
    """
    if not len(boxes):
        return boxes, ''
    relative = boxes.min() >= 0 and boxes.max() <= 1 < sizes.min()
    pixels = boxes * np.tile(sizes, 2) if relative else boxes
    far = (_past_the_end(boxes, sizes) > _FAR * sizes).any(1)
    if not relative and far.mean() <= _MANY:
        return boxes, ''
    readings = {form: np.stack(read(*pixels.T), 1) for form, read in _READINGS.items()}
    fitting = {form: int(_inside(read, sizes).sum()) for form, read in readings.items()}
    certain = [form for form, count in fitting.items() if count == len(boxes)]
    if len(certain) == 1:
        return readings[certain[0]], certain[0] + (' relative to the image' if relative else '')
    best = max(fitting, key=lambda form: fitting[form])
    remedy = f'write {_COCO} in pixels'
    if relative:
        raise UserError(f'all boxes of {where} lie between 0 and 1, relative to the image, and their form is not '
                        f'certain: {remedy}')
    if best != _COCO and fitting[best] >= _MOST * len(boxes):
        raise UserError(f'{far.sum()} of {len(boxes)} boxes of {where} end far outside their images, and '
                        f'{fitting[best]} fit as {best}: {remedy}')
    return boxes, ''


def _past_the_end(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """By how many pixels each box ends outside its image, to the right and below."""
    return boxes[:, :2] + boxes[:, 2:] - sizes


def _inside(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return ((boxes[:, 2:] > 0) & (boxes[:, :2] >= -_ROUNDING) & (_past_the_end(boxes, sizes) <= _ROUNDING)).all(1)
