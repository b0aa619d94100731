"""LabelMe's files: each kind of shape, and what tools and users do to them."""
import base64
import math
from pathlib import Path

import numpy as np
import pytest
from annotation_files import (
    CAT,
    DOG,
    FAR,
    NEAR,
    SIZE,
    box_of,
    labelme_file,
    pairs,
    picture,
    pixels,
    png,
    read,
    shape,
)

from dwnet.data import labelme
from dwnet.data.files import Files
from dwnet.data.table import Table, leaks, settled
from dwnet.errors import UserError


def one_labelme(root: Path, *shapes: dict, **changes) -> Table:
    """The table of an image with ``shapes`` and another with a polygon."""
    for name in 'ab':
        picture(root / f'{name}.jpg')
    labelme_file(root / 'a.json', *shapes, **changes)
    labelme_file(root / 'b.json', shape('cat', pairs(CAT)))
    return read(labelme, root)


@pytest.mark.parametrize('drawn, box', [
    (shape('cat', [[40, 30], [10, 5]], 'rectangle'), [10, 5, 30, 25]),
    (shape('cat', [[10, 30], [40, 30], [40, 5], [10, 5]], 'rectangle'), [10, 5, 30, 25]),
    (shape('cat', [[30, 30], [30, 40]], 'circle'), [20, 20, 20, 20]),
    (shape('cat', [[30, 10], [50, 30], [30, 50], [10, 30]], 'rotation', direction=.78), [10, 10, 40, 40]),
    (shape('cat', [[10, 5], [19, 12]], 'mask', mask=png(np.ones((8, 10)))), [10, 5, 10, 8]),
    (dict(label='cat', points=[[1, 2], [30, 2], [1, 20]]), [1, 2, 29, 18])], ids=lambda value: str(value)[:60])
def test_shapes_of_labelme(drawn, box, tmp_path):
    table = one_labelme(tmp_path / 'my', drawn)
    (found, ), size = table.parts['all'][0].objects, table.parts['all'][0].size
    np.testing.assert_allclose(box_of(found), box, atol=.02)
    areas = dict(circle=100 * math.pi, rotation=800, polygon=29 * 9)
    area = areas.get(drawn.get('shape_type', 'polygon'), box[2] * box[3])
    assert abs(pixels(found['segmentation'], size).sum() - area) < .05 * area
    assert not table.notes or 'mask of a box is the whole box' in table.notes[0]


def test_rectangles_alone_have_no_masks(tmp_path):
    picture(tmp_path / 'my/a.jpg')
    labelme_file(tmp_path / 'my/a.json', shape('cat', [[40, 30], [10, 5]], 'rectangle'))
    table = read(labelme, tmp_path / 'my')
    assert table.parts['all'][0].objects == [dict(label=0, bbox=[10, 5, 30, 25])] and not table.notes


def test_shapes_of_a_group_are_one_object(tmp_path):
    """A mask and a polygon of one cat; a dog with the same group is another object."""
    mask = {**shape('cat', [[100, 70], [109, 77]], 'mask', mask=png(np.ones((8, 10)))), 'group_id': 1}
    table = one_labelme(tmp_path / 'my', {**shape('cat', pairs(CAT)), 'group_id': 1}, mask,
                        {**shape('dog', pairs(DOG)), 'group_id': 1})
    cat, dog = table.parts['all'][0].objects
    expected = pixels([CAT], SIZE)
    expected[70:78, 100:110] = True
    np.testing.assert_array_equal(pixels(cat['segmentation'], SIZE), expected)
    assert dog == dict(label=1, bbox=[60.5, 20, 39.5, 50], segmentation=[DOG])


def test_what_covers_no_pixels_is_counted(tmp_path):
    table = one_labelme(tmp_path / 'my', shape('eye', [[3, 3]], 'point'), shape('road', [[3, 3], [9, 9]], 'line'),
                        shape('road', [[3, 3], [9, 9], [20, 20]], 'linestrip'), shape('road', [[3, 3], [9, 9]], 'line'))
    assert table.classes == ['cat']
    assert table.notes == ['4 of 5 shapes cover no pixels and are left out (2 line, 1 point, 1 linestrip)']
    (tmp_path / 'my/b.json').unlink()
    with pytest.raises(UserError, match=r'all 4 shapes .* cover no pixels \(2 line.*\): draw boxes or polygons'):
        read(labelme, tmp_path / 'my')


def test_labels_of_labelme_itself_are_no_objects(tmp_path):
    drawn = [shape('__ignore__', pairs(FAR)), shape('_background_', pairs(NEAR)), shape('dog', pairs(DOG))]
    assert one_labelme(tmp_path / 'my', *drawn).classes == ['cat', 'dog']
    table = labelme.regions(Files(tmp_path / 'my'), tmp_path)
    assert table.classes == ['__ignore__', '_background_', 'cat', 'dog']


@pytest.mark.parametrize('drawn, fault', [
    (shape('dog', [[1, 1], [20, 20]]), 'with fewer than 3 points'), (shape('', pairs(DOG)), 'without a label'),
    (shape(None, pairs(DOG)), 'without a label'), (dict(points=pairs(DOG)), 'of another form'),
    (shape('dog', [[1, 1], [20, 20], [1e9, 3]]), 'with a point far outside of the image'),
    (shape('dog', [[1, 1], [float('nan'), 20], [5, 3]]), 'with a point far outside of the image'),
    (shape('dog', [[1, 1], [1, 20]], 'rectangle'), 'without an area'), ('dog', 'of another form'),
    (shape('dog', [[1, 1], [2, 'x'], [3, 3]]), 'of another form'),
    (shape('dog', [[3, 3], [3, 3]], 'circle'), 'without an area'),
    (shape('dog', [[5, 5], [9, 9]], 'mask', mask='no PNG'), 'of another form'),
    (shape('dog', [[5, 5], [9, 9]], 'mask', mask=png(np.zeros((5, 5)))), 'without an area'),
    (shape('dog', [[115, 5], [125, 9]], 'mask', mask=png(np.ones((5, 11)))),
     'with a mask that reaches out of the image')])
def test_broken_shapes_are_named(drawn, fault, tmp_path):
    table = one_labelme(tmp_path / 'my', shape('cat', pairs(CAT)), drawn)
    assert table.classes == ['cat'] and len(table.parts['all'][0].objects) == 1
    assert table.notes == [f'1 of 3 shapes below {tmp_path}/my are broken and are left out (1 {fault}: shape 2 of '
                           'a.json)']


def test_many_broken_shapes_are_an_error(tmp_path):
    message = r'11 of 12 shapes below .*/my are broken \(11 with fewer than 3 points: shape 1 of a\.json, .*…\); mend'
    with pytest.raises(UserError, match=message):
        one_labelme(tmp_path / 'my', *[shape('dog', [[1, 1]])] * 11)


@pytest.mark.parametrize('written, image', [
    (r'..\images\a.jpg', 'images/a.jpg'), ('/home/me/pictures/a.jpg', 'images/a.jpg'),
    (r'C:\Users\me\pictures\A.PNG', 'images/a.jpg'), ('IMG_0001.jpg', 'images/a.jpg'), (None, 'images/a.jpg')])
def test_images_of_labelme_are_found(written, image, tmp_path):
    """An image in another folder, under the path of another machine, of another ending, and renamed with its file."""
    picture(tmp_path / 'my' / image)
    labelme_file(tmp_path / 'my/json/a.json', shape('cat', pairs(CAT)), imagePath=written)
    assert [entry.image for entry in read(labelme, tmp_path / 'my').parts['all']] == [image]


def test_an_image_inside_is_written(tmp_path):
    content = picture(tmp_path / 'x.jpg').read_bytes()
    for part in ('train', 'val'):
        labelme_file(tmp_path / f'my/{part}/a.json', shape('cat', pairs(CAT)),
                     imageData=base64.b64encode(content).decode(), imageHeight=None, imageWidth=None)
    files = Files(tmp_path / 'my')
    table = settled(labelme.read(files, tmp_path / 'out'), files)
    for part in ('train', 'val'):
        entry, = table.parts[part]
        assert Path(entry.image) == tmp_path / f'out/images/{part}/a.jpeg' and entry.size == SIZE
        assert Path(entry.image).read_bytes() == content
    assert 'a.jpeg): the score of val is too good' in leaks(table.parts, tmp_path / 'my')[0]


@pytest.mark.parametrize('changes, size', [
    (dict(imageWidth=0, imageHeight=0), (80, 120)), (dict(imageWidth=None), (80, 120)),
    (dict(imageWidth='x'), (80, 120)),
    (dict(imageWidth=80, imageHeight=120), (80, 120)), (dict(imageWidth=120, imageHeight=80), (120, 80))])
def test_sizes_follow_what_the_tool_has_shown(changes, size, tmp_path):
    """LabelMe shows photographs upright; of both orders the one that is written counts."""
    picture(tmp_path / 'my/a.jpg', orientation=6)
    labelme_file(tmp_path / 'my/a.json', shape('cat', pairs(CAT)), **changes)
    assert read(labelme, tmp_path / 'my').parts['all'][0].size == size


@pytest.mark.parametrize('content, fault', [
    (b'', 'without the form of LabelMe'), (b'{"shapes": [', 'without the form of LabelMe'),
    (b'[' * 100_000, 'without the form of LabelMe'), (b'{"version": "5.0"}', 'without the form of LabelMe'),
    (b'{"shapes": 5, "imagePath": "b.jpg"}', 'without the form of LabelMe'),
    (b'{"shapes": [], "imagePath": "c.jpg"}', 'whose image is missing'),
    (b'{"shapes": [], "imagePath": "b.jpg", "imageWidth": 60, "imageHeight": 40}', 'with another size than the image')])
def test_broken_files_of_labelme_are_named(content, fault, tmp_path):
    picture(tmp_path / 'my/b.jpg')
    one_labelme(tmp_path / 'my', shape('dog', pairs(DOG)))
    (tmp_path / 'my/z.json').write_bytes(content)
    table = read(labelme, tmp_path / 'my')
    assert table.notes == [f'1 of 3 JSON files below {tmp_path}/my are broken and are left out (1 {fault}: z.json)']
    for name in 'ab':
        (tmp_path / f'my/{name}.json').write_bytes(b'{"shapes"')
    with pytest.raises(UserError, match='3 of 3 JSON files'):
        read(labelme, tmp_path / 'my')


def test_parts_and_images_without_a_file(tmp_path):
    root = tmp_path / 'my'
    for name in ('train/a', 'validation/b', 'test/c'):
        picture(root / f'images/{name}.jpg')
        labelme_file(root / f'labels/{name}.json', *[shape('cat', pairs(CAT))] * ('c' not in name))
    picture(root / 'images/train/new.jpg')
    table = read(labelme, root)
    assert {part: [entry.image for entry in entries] for part, entries in table.parts.items()} == dict(
        train=['images/train/a.jpg'], val=['images/validation/b.jpg'], test=['images/test/c.jpg'])
    assert table.notes == ['1 images have no LabelMe file and are left out: images/train/new.jpg']
    assert read(labelme, tmp_path / 'my/images') is None
