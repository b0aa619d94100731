"""YOLO data as tools write them: data.yaml in its variants, darknet's files, label files and their lines."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import NAMES, Scene, assert_same, box_of, content, make_scenes, table_of_coco, write_picture

from dwnet.data import yolo
from dwnet.data.files import Files
from dwnet.data.table import Table
from dwnet.errors import UserError

BOX = '0 0.5 0.5 0.2 0.4'
YAML = 'train: images/train\nval: images/val\nnames: [cat, dog, owl]\n'


def write(root: Path, files: dict[str, str], images: Sequence[str] = ()) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    for name in images:
        write_picture(root / name, (50, 40))
    return root


def read(root: Path) -> Table:
    table = yolo.read(Files(root), root / 'out')
    assert table is not None
    return table


def small(root: Path, lines: str = BOX, settings: str | None = YAML, **files: str) -> Path:
    """Two images to train with and one to validate with; ``lines`` are the label file of the first."""
    write(root, {'labels/train/1.txt': lines, 'labels/train/2.txt': BOX, 'labels/val/3.txt': BOX, **files},
          ['images/train/1', 'images/train/2', 'images/val/3'])
    return write(root, {} if settings is None else {'data.yaml': settings})


def objects(table: Table, stem: str = '1') -> list[tuple]:
    return [(name, box.round(6).tolist()) for name, box, _ in content(table)[stem][1]]


def parts(table: Table) -> dict[str, list[str]]:
    return {part: [entry.image for entry in entries] for part, entries in table.parts.items()}


def scene_lines(scene: Scene, polygons: bool) -> str:
    lines = []
    for name, polygon in scene.objects:
        x, y, w, h = box_of(polygon)
        values = (polygon / scene.size).ravel() if polygons else [
            (x + w / 2) / scene.size[0], (y + h / 2) / scene.size[1], w / scene.size[0], h / scene.size[1]]
        lines.append(' '.join([str(NAMES.index(name)), *(f'{value:.6f}' for value in values)]))
    return '\n'.join(lines)


# --- The same data -------------------------------------------------------------------------------------


@pytest.mark.parametrize('polygons', [False, True])
def test_boxes_and_polygons_are_those_of_coco(polygons, tmp_path):
    scenes = make_scenes()
    for scene in scenes:
        write(tmp_path / 'yolo', {f'labels/{scene.stem}.txt': scene_lines(scene, polygons)})
        write_picture(tmp_path / f'yolo/images/{scene.stem}', scene.size)
    write(tmp_path / 'yolo', {'data.yaml': 'train: images\nnames: [cat, dog, owl]'})
    table = read(tmp_path / 'yolo')
    other = table_of_coco(tmp_path / 'coco', scenes)
    if not polygons:
        for entries in other.parts.values():
            for entry in entries:
                for each in entry.objects:
                    del each['segmentation']
    assert table.classes == other.classes == NAMES and list(table.parts) == ['train']
    assert_same(table, other, 1e-4, masks=polygons)


def test_fractions_are_of_the_image_as_a_viewer_shows_it(tmp_path):
    root = small(tmp_path)
    exif = Image.Exif()
    exif[0x112] = 6
    write_picture(root / 'images/train/1', (50, 40), exif=exif)
    table = read(root)
    assert content(table)['1'][0] == (40, 50) and objects(table) == [('cat', [16, 15, 8, 20])]


# --- data.yaml -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('settings', [
    YAML,
    'path: .\ntrain: ./images/train\nval: images/val/\nnames:\n  0: cat\n  1: dog\n  2: owl\n',
    'path: /content/datasets/mine\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog, 2: owl}',
    # Roboflow's
    'path: ../datasets/mine\ntrain: ../images/train\nval: ../images/val\nnc: 3\nnames: ["cat", "dog", "owl"]',
    'train: C:\\Users\\me\\data\\images\\train\nval: C:\\Users\\me\\data\\images\\val\nnames: [cat, dog, owl]',
    'train: /kaggle/working/mine/images/train\nval: /kaggle/working/mine/images/val\nnames: [cat, dog, owl]',
    'train: [images/train/1.jpg, images/train/2.jpg]\nval: images/val\ntest:\nnames: [cat, dog, owl]',
    'train: train.txt\nval: [val.txt]\nnames: [cat, dog, owl]',
    '\ufefftrain: images/train\r\nval: images/val\r\nnames: [cat, dog, owl]\r\n',
    'train: images/train\nvalidation: images/val\nnames: classes.txt'])
def test_data_yaml_in_its_variants(settings, tmp_path):
    root = small(tmp_path, '2 0.5 0.5 0.2 0.4', settings, **{
        'train.txt': './images/train/1.jpg\r\n/elsewhere/images/train/2.jpg\r\n', 'val.txt': 'images\\val\\3.jpg\n',
        'classes.txt': 'cat\ndog\nowl\n'})
    table = read(root)
    assert parts(table) == dict(train=['images/train/1.jpg', 'images/train/2.jpg'], val=['images/val/3.jpg'])
    assert table.classes == ['cat', 'owl'] and objects(table) == [('owl', [20, 12, 10, 16])]
    assert objects(table, '3') == [('cat', [20, 12, 10, 16])]
    assert table.notes == ['1 classes without an object are left out: dog'] and table.form == 'YOLO (data.yaml)'


@pytest.mark.parametrize('names, classes', [
    ('names: [no, 1, 007]', ['no', '1', '007']), ('names: {0: yes, 2: null, 1: 0x1}', ['yes', '0x1', 'null']),
    ('nc: 3', ['0', '1', '2'])])
def test_names_are_taken_as_they_are_written(names, classes, tmp_path):
    lines = '\n'.join(f'{i} 0.5 0.5 0.2 0.4' for i in range(3))
    assert read(small(tmp_path, lines, f'train: images/train\nval: images/val\n{names}')).classes == classes


@pytest.mark.parametrize('name, missing', [('test', 'test'), ('val', 'val')])
def test_a_part_that_is_missing_is_said(name, missing, tmp_path):
    """Roboflow names a test part in any case."""
    settings = f'train: ../images/train\n{name}: ../{missing}/images\nnames: [cat]'
    table = read(small(tmp_path, BOX, settings))
    assert list(table.parts) == ['train']
    assert f'{name} of {tmp_path}/data.yaml is ../{missing}/images, where no images are: it is left out' in table.notes
    assert any('1 images with label files belong to no part' in note for note in table.notes)


def test_images_beside_the_folder_of_the_part_and_labels_beside_images(tmp_path):
    settings = 'train: train\nval: valid\nnames: [cat]'
    write(tmp_path, {'data.yaml': settings, 'train/labels/1.txt': BOX, 'valid/3.txt': BOX},
          ['train/images/1', 'valid/3'])
    table = read(tmp_path)
    assert parts(table) == dict(train=['train/images/1.jpg'], val=['valid/3.jpg']) and not table.notes
    assert objects(table) == objects(table, '3') == [('cat', [20, 12, 10, 16])]


def test_a_list_with_missing_images(tmp_path):
    root = small(tmp_path, BOX, 'train: train.txt\nval: images/val\nnames: [cat]', **{
        'train.txt': 'images/train/1.jpg\nimages/train/9.jpg\nimages/train/2.jpg'})
    table = read(root)
    assert [entry.image for entry in table.parts['train']] == ['images/train/1.jpg', 'images/train/2.jpg']
    assert any('1 of 3 images that' in note and 'images/train/9.jpg' in note for note in table.notes)


@pytest.mark.parametrize('settings, message', [
    ('train: pictures\nval: images/val\nnames: [cat]', 'train of .*data.yaml is pictures, where no images are'),
    ('train: {a: b}\nval: images/val\nnames: [cat]', 'train is neither a path nor a list of paths'),
    ('train: images/train\nnames: [cat, cat]', 'gives several classes the name cat'),
    ('train: images/train\nnames: {cat: 0}', 'names is neither a list of names nor a name for each number'),
    ('train: images/train\nnames: [[cat], dog]', 'names is neither a list of names nor a name for each number'),
    ('train: images/train\nnames: coco.names', 'takes the names of the classes from coco.names, which is not below'),
    ('train: images/train\nnames: [cat', 'data.yaml is no whole YAML .*mend it'),
    ('train: images/train\nnames: [cat]\nkpt_shape: [17, 3]', r'has keypoints \(kpt_shape\).*export boxes or')])
def test_settings_that_cannot_be_read(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(small(tmp_path, BOX, settings))


def test_several_data_yaml(tmp_path):
    root = small(tmp_path, BOX, None, **{'a/data.yaml': YAML, 'b/data.yaml': YAML})
    with pytest.raises(UserError, match='several files with the names of classes: a/data.yaml, b/data.yaml'):
        read(root)
    write(root, {'data.yaml': YAML, 'args.yaml': 'epochs: 3'})  # what lies above counts
    assert read(root).classes == ['cat']


# --- Without data.yaml ---------------------------------------------------------------------------------


def test_the_yolo_of_darknet_and_cvat(tmp_path):
    write(tmp_path, {
        'obj.data': 'classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = b',
        'train.txt': 'data/obj_train_data/1.jpg\n', 'valid.txt': 'data/obj_valid_data/2.jpg\n',
        'obj.names': 'cat\ndog\n', 'obj_train_data/1.txt': BOX, 'obj_valid_data/2.txt': '1 0.5 0.5 0.2 0.4'},
        ['obj_train_data/1', 'obj_valid_data/2'])
    table = read(tmp_path)
    assert table.classes == ['cat', 'dog'] and table.form == 'YOLO (obj.data)'
    assert parts(table) == dict(train=['obj_train_data/1.jpg'], val=['obj_valid_data/2.jpg'])


@pytest.mark.parametrize('listed, expected', [
    ({}, dict(all=['images/1.jpg', 'images/2.jpg'])),
    ({'train.txt': 'images/1.jpg', 'val.txt': 'images/2.jpg'}, dict(train=['images/1.jpg'], val=['images/2.jpg']))])
def test_classes_txt_as_of_labelimg_and_label_studio(listed, expected, tmp_path):
    write(tmp_path, {'classes.txt': 'cat\ndog\n', 'labels/1.txt': BOX, 'labels/2.txt': '1 .5 .5 .1 .1', **listed},
          ['images/1', 'images/2'])
    table = read(tmp_path)
    assert table.classes == ['cat', 'dog'] and parts(table) == expected and not table.notes


def test_folders_tell_the_parts_and_lists_of_classes_may_grow(tmp_path):
    write(tmp_path, {'train/classes.txt': 'cat\ndog', 'valid/classes.txt': 'cat\n', 'train/1.txt': BOX,
                     'valid/2.txt': BOX}, ['train/1', 'valid/2'])
    assert parts(read(tmp_path)) == dict(train=['train/1.jpg'], val=['valid/2.jpg'])
    write(tmp_path, {'valid/classes.txt': 'dog\n'})
    with pytest.raises(UserError, match='name different classes, or name them in another order'):
        read(tmp_path)


def test_numbers_without_names(tmp_path):
    table = read(small(tmp_path, '7 0.5 0.5 0.2 0.4', None))
    assert table.classes == ['0', '7'] and objects(table) == [('7', [20, 12, 10, 16])]
    assert table.notes == ['the classes have numbers and no names: write the names into data.yaml or classes.txt']


def test_other_data_are_not_yolo(tmp_path):
    write(tmp_path, {'images/1.txt': 'a cat on a sofa', 'README.txt': 'hello', 'env.yaml': 'names: [x]'}, ['images/1'])
    assert yolo.read(Files(tmp_path), tmp_path) is None


# --- Label files and lines -----------------------------------------------------------------------------


@pytest.mark.parametrize('line', [
    '0.0 0.5 0.5 0.2 0.4', '0\t0.5  0.5 0.2 0.4 ', '0 5e-1 .5 +0.2 0.40', '# made by hand\n\n0 0.5 0.5 0.2 0.4 # a cat',
    '\ufeff0 0.5 0.5 0.2 0.4\r\n'])
def test_ways_to_write_a_box(line, tmp_path):
    table = read(small(tmp_path, line))
    assert objects(table) == [('cat', [20, 12, 10, 16])] and len(table.notes) == 1


@pytest.mark.parametrize('line, box, note', [
    ('0 0.5 0.5 0.2 0.4 0.93', [20, 12, 10, 16], '1 lines have a sixth number'),
    ('0 0.5 0.5 0.2 0.4 17', [20, 12, 10, 16], '1 lines have a sixth number'),
    ('0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4', [20, 12, 10, 16], '1 lines stand twice in a label file and count once'),
    ('0 1.01 0.5 0.2 0.4', [45.5, 12, 10, 16], 'dog'),
    ('1 0.2 0.25 0.6 0.25 0.6 0.75 0.2 0.75', [10, 10, 20, 20], 'owl'),  # a turned box, or a polygon
    ('', None, '1 images have no label file, or an empty one')])
def test_lines_that_are_read_and_told_of(line, box, note, tmp_path):
    table = read(small(tmp_path, line))
    assert [each for _, each in objects(table)] == ([] if box is None else [box])
    assert sum(note in each for each in table.notes) == 1


def test_a_box_among_polygons_has_a_mask(tmp_path):
    table = read(small(tmp_path, f'{BOX}\n1 0.2 0.25 0.6 0.25 0.6 0.75'))
    assert [polygon.round(6).tolist() for _, _, polygon in content(table)['1'][1]] == [
        [20, 12, 30, 12, 30, 28, 20, 28], [10, 10, 30, 10, 30, 30]]
    assert any('3 of 4 objects are boxes, and the others have outlines' in note for note in table.notes)


def test_a_missing_label_file_is_an_image_without_objects(tmp_path):
    root = small(tmp_path)
    (root / 'labels/train/1.txt').unlink()
    table = read(root)
    assert objects(table) == [] and len(table.parts['train']) == 2
    assert any('1 images have no label file' in note for note in table.notes)


BROKEN = {
    '3 0.5 0.5 0.2 0.4': 'with a class that has no name', '-1 0.5 0.5 0.2 0.4': 'with a class that has no name',
    '0.5 0.5 0.5 0.2 0.4': 'with a class that has no name', 'nan 0.5 0.5 0.2 0.4': 'with a class that has no name',
    'inf 0.5 0.5 0.2 0.4': 'with a class that has no name', 'cat 0.5 0.5 0.2 0.4': 'with words in the place of numbers',
    '0,0.5,0.5,0.2,0.4': 'with words in the place', '0 0,5 0,5 0,2 0,4': 'with words in the place of numbers',
    '0 0.5 0.5 0.2': 'neither a box nor a polygon', '0': 'neither a box nor a polygon',
    '0 0.5 0.5 0.2 0.4 0.1 0.1 2': 'keypoints', '0 25 20 10 16': 'pixels', '0 0.5 0.5 nan 0.4': 'no fractions',
    '0 0.5 0.5 1e300 0.4': 'no fractions', '0 0.5 0.5 0 0.4': 'without a width or a height',
    '0 0.1 0.1 0.5 0.1 0.9 0.1': 'without a width or a height', '0 0.5 0.5 -0.05 0.4': 'without a width or a height'}


@pytest.mark.parametrize('line', BROKEN)
def test_a_broken_line_is_left_out_and_named(line, tmp_path):
    table = read(small(tmp_path, f'{BOX}\n{line}\n1 0.2 0.2 0.1 0.1'))
    assert [name for name, _ in objects(table)] == ['cat', 'dog']
    assert sum(BROKEN[line] in note and 'line 2 of labels/train/1.txt' in note for note in table.notes) == 1


def test_many_broken_lines_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r'11 of 14 lines .*11 with numbers that are no .*\(pixels\?\): line 1 of'):
        read(small(tmp_path, '\n'.join([*(f'0 {20 + i} 20 10 16' for i in range(11)), BOX])))


def test_label_files_without_an_image(tmp_path):
    root = small(tmp_path, **{'labels/train/9.txt': BOX, 'labels/train/notes.txt': 'a note', 'labels/old/8.txt': BOX})
    assert any('2 of 5 label files below' in note and '2 without an image: labels/old/8.txt, labels/train/9.txt'
               in note for note in read(root).notes)
    write(root, {f'labels/train/{i}.txt': BOX for i in range(20, 40)})
    with pytest.raises(UserError, match='22 of 25 label files below .* are broken .22 without an image'):
        read(root)


def test_no_label_file_at_all(tmp_path):
    write(tmp_path, {'data.yaml': YAML}, ['images/train/1', 'images/val/3'])
    with pytest.raises(UserError, match='no image to train with has a label file: that of .*images/train/1.jpg is'):
        read(tmp_path)


def test_damaged_images_are_left_out_and_named(tmp_path):
    root = small(tmp_path)
    (root / 'images/train/1.jpg').write_bytes(b'no image')
    table = read(root)
    assert parts(table)['train'] == ['images/train/2.jpg']
    assert any('1 of 3 images below' in note and 'images/train/1.jpg' in note for note in table.notes)


def test_arrays_that_are_copies_of_images_are_left_out(tmp_path):
    """Ultralytics writes them with cache='disk', in the order blue, green, red."""
    small(tmp_path)
    for image in Files(tmp_path).images:
        np.save((tmp_path / image).with_suffix('.npy'), np.zeros((40, 50, 3), np.uint8))
    table = read(tmp_path)
    assert not any(image.endswith('.npy') for images in parts(table).values() for image in images)
    assert [note for note in table.notes if 'npy' in note] == [
        '3 arrays (.npy) are copies of images, as Ultralytics writes them, and are left out']
