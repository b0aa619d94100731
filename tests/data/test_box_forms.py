"""Boxes in COCO's form and in others: recognised from numbers that are drawn in a known form."""
import numpy as np
import pytest

from dwnet.data.box_forms import in_coco_form
from dwnet.errors import UserError

WRITE = {
    '[x, y, width, height]': lambda x, y, w, h: (x, y, w, h),
    '[left, top, right, bottom]': lambda x, y, w, h: (x, y, x + w, y + h),
    '[x of the centre, y of the centre, width, height]': lambda x, y, w, h: (x + w / 2, y + h / 2, w, h)}


def draw(number: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random boxes, and the sizes of their images."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(100, 900, (number, 2)).astype(float)
    sides = generator.uniform(.05, .6, (number, 2)) * sizes
    return np.hstack([generator.uniform(0, 1, (number, 2)) * (sizes - sides), sides]), sizes


@pytest.mark.parametrize('relative', [False, True])
@pytest.mark.parametrize('form', WRITE)
def test_a_form_is_recognised(form, relative):
    boxes, sizes = draw()
    written = np.stack(WRITE[form](*boxes.T), 1) / (np.tile(sizes, 2) if relative else 1)
    read, name = in_coco_form(written, sizes, 'a.json')
    assert np.abs(read - boxes).max() < 1e-9
    assert name == ('' if form == '[x, y, width, height]' and not relative else
                    form + ' relative to the image' * relative)


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('over', [0, 1.5, .08])
def test_boxes_of_coco_stay(seed, over):
    """Boxes of tools that round up, or let boxes stick out; few boxes, of objects that fill their images."""
    boxes, sizes = draw(4, seed)
    boxes[:, :2] /= 8
    boxes[:, 2:] = sizes - boxes[:, :2] + (over * sizes if over < 1 else over)
    read, name = in_coco_form(boxes, sizes, 'a.json')
    assert name == '' and (read == boxes).all()


def test_a_box_that_is_wrong_does_not_condemn_the_others():
    boxes, sizes = draw()
    boxes[3, 2] = 5000
    assert in_coco_form(boxes, sizes, 'a.json')[1] == ''
    assert in_coco_form(boxes[:0], sizes[:0], 'a.json')[1] == ''


def test_a_form_that_is_not_certain_is_an_error():
    boxes, sizes = draw(100)
    written = np.stack(WRITE['[left, top, right, bottom]'](*boxes.T), 1)
    written[7, 2] = written[7, 0]
    with pytest.raises(UserError, match=r'boxes of a.json end far outside their images, and 99 fit as \[left, top, '):
        in_coco_form(written, sizes, 'a.json')
    with pytest.raises(UserError, match=r'all boxes of a.json lie between 0 and 1, .* write \[x, y, width'):
        in_coco_form(np.array([[.4, .4, .5, .5]]), np.array([[90., 50.]]), 'a.json')
