"""Label images that are drawn from objects: equal for equal objects, and what covers what."""
import json
from pathlib import Path

import numpy as np
import pytest
from annotation_files import (
    CAT,
    DOG,
    FAR,
    NEAR,
    SIZE,
    as_coco,
    as_cvat,
    as_labelme,
    box_of,
    cvat_box,
    cvat_file,
    cvat_image,
    labelme_file,
    pairs,
    picture,
    pixels,
    polygons,
    scenes_of,
    shape,
)
from PIL import Image, ImageOps

from dwnet.data import drawn
from dwnet.data.files import Files
from dwnet.data.own import read_own_data
from dwnet.data.table import Table
from dwnet.errors import UserError

COCO, CVAT, LABELME, YOLO, VOC = (next(form for form in drawn.FORMS if name == form.NAME)
                                  for name in ('coco', 'cvat', 'labelme', 'yolo', 'voc'))
INSIDE = [20, 20, 30, 20, 30, 30, 20, 30]  # of CAT


def read(form, root: Path) -> tuple[Table, dict[str, np.ndarray]]:
    """The table, and the label image of each image."""
    table = form.read(Files(root), root.parent / f'{root.name}_written')
    images = [Image.open(entry.mask) for entries in table.parts.values() for entry in entries if entry.mask]
    assert all(image.mode == 'L' for image in images)
    return table, {Path(image.filename).name.split('.')[0]: np.asarray(image) for image in images}


def coco_file(root: Path, annotations: list[dict], names: tuple[str, ...] = ('cat', 'dog'), image: str = 'a.jpg',
              size: tuple[int, int] = SIZE, name: str = 'all.json') -> None:
    """A COCO file of an image whose annotations have ``segmentation`` and ``category_id``."""
    whole = [dict(id=i, image_id=1, iscrowd=0, area=100., **each) for i, each in enumerate(annotations, 1)]
    for each in whole:
        each.setdefault('bbox', box_of(each) if 'segmentation' in each else [1, 1, 9, 9])
    (root / name).write_text(json.dumps(dict(
        images=[dict(id=1, file_name=image, width=size[0], height=size[1])], annotations=whole,
        categories=[dict(id=i, name=name) for i, name in enumerate(names, 1)])))


@pytest.mark.parametrize('form, write', [(COCO, as_coco), (CVAT, as_cvat), (LABELME, as_labelme)],
                         ids=lambda value: getattr(value, 'NAME', ''))
def test_label_images_of_the_digits(form, write, small_digits, tmp_path):
    """The objects of the scenes do not overlap, so their label images, made with the scenes, come out again."""
    table, images = read(form, write(scenes_of(small_digits), tmp_path / 'my'))
    assert table.classes == ['background', *'0123456789'] and len(images) == 24
    for name, labels in images.items():
        np.testing.assert_array_equal(labels, Image.open(small_digits / f'labels/train/{name}.png'))


def test_label_images_of_polygons_are_equal(tmp_path):
    polygons(tmp_path)
    found = [read(form, tmp_path / form.NAME) for form in (COCO, CVAT, LABELME)]
    expected = np.zeros(SIZE[::-1], np.uint8)
    expected[pixels([CAT], SIZE)], expected[pixels([DOG], SIZE)] = 1, 2
    for table, images in found:
        assert table.classes == ['background', 'cat', 'dog'] and images.keys() == set('abc')
        np.testing.assert_array_equal(images['a'], expected)
        np.testing.assert_array_equal(images['b'], pixels([FAR, NEAR], SIZE))
    picture(tmp_path / 'yolo/a.jpg')
    lines = (f"{i} {' '.join(map(str, (np.reshape(outline, (-1, 2)) / SIZE).ravel()))}" for i, outline in enumerate(
        (CAT, DOG)))
    (tmp_path / 'yolo/a.txt').write_text('\n'.join(lines))
    (tmp_path / 'yolo/classes.txt').write_text('cat\ndog\n')
    table, images = read(YOLO, tmp_path / 'yolo')
    assert table.classes == ['background', 'cat', 'dog']
    np.testing.assert_array_equal(images['a'], expected)


def test_small_objects_cover_large_ones_and_crowds(tmp_path):
    root = picture(tmp_path / 'my/a.jpg').parent
    coco_file(root, [
        dict(category_id=2, segmentation=[INSIDE]), dict(category_id=1, segmentation=[CAT]),
        {**dict(category_id=1, segmentation=[[0, 0, 60, 0, 60, 60, 0, 60]])}])
    content = json.loads((root / 'all.json').read_text())
    content['annotations'][2]['iscrowd'] = 1
    (root / 'all.json').write_text(json.dumps(content))
    _, images = read(COCO, root)
    expected = np.zeros(SIZE[::-1], int)
    expected[:60, :60] = 255
    expected[pixels([CAT], SIZE)], expected[20:30, 20:30] = 1, 2
    np.testing.assert_array_equal(images['a'], expected)


def test_labels_of_labelme_itself(tmp_path):
    """A hole in a cat, and a region that is not looked at."""
    picture(tmp_path / 'my/a.jpg')
    labelme_file(tmp_path / 'my/a.json', shape('_background_', pairs(INSIDE)), shape('cat', pairs(CAT)),
                 shape('__ignore__', pairs(DOG)))
    table, images = read(LABELME, tmp_path / 'my')
    expected = np.where(pixels([CAT], SIZE), 1, 0)
    expected[20:30, 20:30], expected[pixels([DOG], SIZE)] = 0, 255
    assert table.classes == ['background', 'cat']
    np.testing.assert_array_equal(images['a'], expected)


def test_a_class_called_background_is_the_background(tmp_path):
    root = picture(tmp_path / 'my/a.jpg').parent
    coco_file(root, [dict(category_id=1, segmentation=[CAT]), dict(category_id=2, segmentation=[INSIDE])],
              ('cat', 'Background'))
    table, images = read(COCO, root)
    assert table.classes == ['background', 'cat'] and not images['a'][20:30, 20:30].any()


@pytest.mark.parametrize('size, turned', [(SIZE, True), (SIZE[::-1], False)])
def test_label_images_are_upright(size, turned, tmp_path):
    """The label image of a photograph that EXIF turns fits what a viewer shows, whichever the tool has shown."""
    photograph = picture(tmp_path / 'my/a.jpg', orientation=6)
    outline = [5, 5, 30, 5, 30, 70, 5, 70]
    coco_file(tmp_path / 'my', [dict(category_id=1, segmentation=[outline])], size=size)
    _, images = read(COCO, tmp_path / 'my')
    assert images['a'].shape == ImageOps.exif_transpose(Image.open(photograph)).size[::-1]
    expected = pixels([outline], size)
    np.testing.assert_array_equal(images['a'], np.rot90(expected, -1) if turned else expected)


def test_a_part_without_annotations_has_no_label_images(tmp_path):
    root = picture(tmp_path / 'my/a.jpg').parent
    picture(root / 'b.jpg')
    coco_file(root, [dict(category_id=1, segmentation=[CAT])], name='train.json')
    coco_file(root, [], name='test.json', image='b.jpg')
    table, images = read(COCO, root)
    assert images.keys() == {'a'} and table.parts['test'][0].mask is None


def test_boxes_alone_are_refused(tmp_path):
    picture(tmp_path / 'my/a.jpg')
    cvat_file(tmp_path / 'my/a.xml', cvat_image('a.jpg', cvat_box('cat', 1, 2, 30, 40)))
    with pytest.raises(UserError, match=r'objects of .*my \(CVAT \(a\.xml\)\) have boxes and no outlines: a segmentor'):
        read(CVAT, tmp_path / 'my')
    (tmp_path / 'my/a.xml').write_text('<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9'
                                       '</xmax><ymax>9</ymax></bndbox></object></annotation>')
    with pytest.raises(UserError, match=r'objects of .*my \(Pascal VOC\) have boxes and no outlines: a segmentor'):
        read(VOC, tmp_path / 'my')


def test_a_few_objects_without_an_outline_are_named(tmp_path):
    picture(tmp_path / 'my/a.jpg')
    labelme_file(tmp_path / 'my/a.json', shape('cat', pairs(CAT)), shape('dog', pairs(DOG)))
    table = LABELME.objects(Files(tmp_path / 'my'), tmp_path)
    table.parts['all'][0].objects[1].pop('segmentation')
    form = drawn.Drawn('x', 'x', lambda files, out: table)
    found, images = read(form, tmp_path / 'my')
    assert found.notes == [f'1 of 2 objects below {tmp_path}/my are broken and are left out (1 with a box and no '
                           'outline: one of a.jpg)']
    np.testing.assert_array_equal(images['a'], pixels([CAT], SIZE))


def test_too_many_classes_are_refused(tmp_path):
    picture(tmp_path / 'my/a.jpg')
    labelme_file(tmp_path / 'my/a.json', *(shape(f'{i:03}', pairs(CAT)) for i in range(255)))
    with pytest.raises(UserError, match='256 classes with the background: label images have 255 at most'):
        read(LABELME, tmp_path / 'my')
    labelme_file(tmp_path / 'my/a.json', *(shape(f'{i:03}', pairs(CAT)) for i in range(254)))
    assert len(read(LABELME, tmp_path / 'my')[0].classes) == 255


def test_the_objects_of_all_files_of_a_part_are_drawn_into_one_label_image(tmp_path):
    root = picture(tmp_path / 'my/a.jpg').parent
    coco_file(root, [dict(category_id=1, segmentation=[CAT])], name='train_cats.json')
    coco_file(root, [dict(category_id=2, segmentation=[DOG])], name='train_dogs.json')
    table, images = read(COCO, root)
    assert len(table.parts['train']) == 1 and set(np.unique(images['a'])) == {0, 1, 2}


def test_an_image_that_was_scaled_after_it_was_annotated_is_not_drawn(tmp_path):
    root = picture(tmp_path / 'my/a.jpg').parent
    coco_file(root, [dict(category_id=1, segmentation=[CAT])], size=(SIZE[0] * 2, SIZE[1] * 2))
    with pytest.raises(UserError, match='1 of 1 images .* another size than their annotations say: a.jpg'):
        COCO.read(Files(root), tmp_path / 'out')
    picture(root / 'b.jpg')
    coco_file(root, [dict(category_id=1, segmentation=[CAT])], image='b.jpg', name='more.json')
    table, images = read(COCO, root)
    assert images.keys() == {'b'} and [entry.image for entry in table.parts['all']] == ['b.jpg']
    assert any('another size than their annotations say: a.jpg' in note for note in table.notes)


def test_several_roots_with_other_classes_are_numbered_alike(tmp_path):
    for i in 'abcd':
        for folder, label in (('one', 'cat' if i < 'c' else 'dog'), ('two', 'dog')):
            picture(tmp_path / folder / f'{i}.jpg')
            labelme_file(tmp_path / folder / f'{i}.json', shape(label, pairs(CAT)), shape('__ignore__', pairs(INSIDE)))
    data = read_own_data([tmp_path / 'one', tmp_path / 'two'], 'segmentation', [LABELME], tmp_path / 'out')
    assert data.classes == ['background', 'cat', 'dog']
    written = [json.loads(Path(part['ann_file']).read_text()) for part in data.parts.values()]
    found = {image: set(np.unique(Image.open(mask)).tolist()) for its in written for image, mask in its}
    assert found == {f'{folder}/{i}.jpg': {0, 1 if folder == 'one' and i < 'c' else 2, 255}
                     for folder in ('one', 'two') for i in 'abcd'}
