"""Points, boxes and masks that are turned as Pillow turns pixels."""
import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from dwnet.data import orientation
from dwnet.data.orientation import BACK, Annotated

WIDTH, HEIGHT = 30, 20
EVERY = range(1, 9)


def exif(tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = tag
    return exif


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def by_pillow(pixels: np.ndarray, tag: int) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.info['exif'] = exif(tag).tobytes()
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize('tag', EVERY)
def test_pixels_boxes_and_masks_agree(tag):
    box = 4, 3, 11, 17
    mask = rectangle(*box)
    expected = by_pillow(mask, tag)
    turned = orientation.turn_pixels(mask, tag)
    assert np.array_equal(turned, expected) and expected.shape == ((20, 30) if tag < 5 else (30, 20))
    assert np.array_equal(orientation.turn_pixels(turned, BACK[tag]), mask)
    rows, columns = expected.nonzero()
    around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    boxes = orientation.turn_boxes(np.array([box, box], float), tag, WIDTH, HEIGHT)
    assert boxes.tolist() == [around, around]
    height, width = expected.shape
    assert orientation.turn_boxes(boxes, BACK[tag], width, height)[0].tolist() == list(box)
    compressed = coco_mask.encode(np.asfortranarray(mask))
    runs = [3 + 4 * 20, *[14, 6] * 6, 14, 3 + 19 * 20]
    polygon = [[4., 3., 11., 3., 11., 17., 4., 17.]]
    for segmentation in ({**compressed, 'counts': compressed['counts'].decode()}, dict(size=[20, 30], counts=runs)):
        rle = orientation.turn_segmentation(segmentation, tag, WIDTH, HEIGHT)
        assert np.array_equal(coco_mask.decode(rle), expected) and rle['size'] == [height, width]
        assert isinstance(rle['counts'], str)
    turned = orientation.turn_segmentation(polygon, tag, WIDTH, HEIGHT)
    assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(turned, height, width))[..., 0], expected)


@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('tag', EVERY)
def test_which_pixels_an_annotation_is_of(tag, kind, tmp_path):
    path, square = tmp_path / f'a.{kind}', tmp_path / f'b.{kind}'
    Image.new('RGB', (WIDTH, HEIGHT)).save(path, exif=exif(tag))
    Image.new('RGB', (WIDTH, WIDTH)).save(square, exif=exif(tag))
    unturned = {1: Annotated.UPRIGHT, **dict.fromkeys((5, 6, 7, 8), Annotated.UNTURNED)}.get(tag, Annotated.UNCLEAR)
    assert orientation.compare(str(path), WIDTH, HEIGHT) == (tag, unturned)
    if tag >= 5:
        assert orientation.compare(str(path), HEIGHT, WIDTH) == (tag, Annotated.UPRIGHT)
    assert orientation.compare(str(square), WIDTH, WIDTH)[1] == (Annotated.UPRIGHT if tag == 1 else Annotated.UNCLEAR)


def test_what_has_no_orientation(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'no image')
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'b.jpg', exif=exif(99))
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'c.jpg')
    for name in 'abcd':
        assert orientation.compare(str(tmp_path / f'{name}.jpg'), WIDTH, HEIGHT) == (1, Annotated.UPRIGHT)
