"""Pascal VOC as tools write it: lists of images, XML files, and where images lie."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import NAMES, Scene, assert_same, box_of, content, make_scenes, table_of_coco, write_picture

from dwnet.data import voc
from dwnet.data.files import Files
from dwnet.data.table import Table
from dwnet.errors import UserError

OBJECT = ('<object><name>{name}</name>{more}<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax>'
          '</bndbox></object>')
SIZE = '<size><width>50</width><height>40</height><depth>3</depth></size>'


def thing(*corners, name: str = 'cat', more: str = '') -> str:
    return OBJECT.format(*corners, name=name, more=more)


BOX = thing(11, 21, 20, 40)


def write(root: Path, files: dict[str, str], images: Sequence[str] = ()) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'<annotation>{text}</annotation>' if name.endswith('.xml') and text[:2] != '<?' else text)
    for name in images:
        write_picture(root / name, (50, 40))
    return root


def small(root: Path, *objects: str, size: str = SIZE, filename: str = '<filename>1.jpg</filename>') -> Path:
    """Two images to train with and one to validate with; ``objects`` are those of the first."""
    write(root, {'ImageSets/Main/train.txt': '1\n2\n', 'ImageSets/Main/val.txt': '3\n', 'Annotations/2.xml': SIZE + BOX,
                 'Annotations/3.xml': SIZE + BOX}, ['JPEGImages/1', 'JPEGImages/2', 'JPEGImages/3'])
    return write(root, {'Annotations/1.xml': filename + size + ''.join(objects or [BOX])})


def read(root: Path) -> Table:
    table = voc.read(Files(root), root / 'out')
    assert table is not None
    return table


def objects(table: Table, stem: str = '1') -> list[tuple]:
    return [(name, box.tolist()) for name, box, _ in content(table)[stem][1]]


def parts(table: Table) -> dict[str, list[str]]:
    return {part: [entry.image for entry in entries] for part, entries in table.parts.items()}


def scene_xml(scene: Scene, first: int) -> str:
    """Corners that are counted from ``first``: from 1 both belong to the box, from 0 the far one is behind it."""
    things = []
    for name, polygon in scene.objects:
        x, y, w, h = box_of(polygon)
        things.append(thing(f'{x + first:g}', f'{y + first:g}', f'{x + w:g}', f'{y + h:g}', name=name))
    width, height = scene.size
    return f'<size><width>{width}</width><height>{height}</height></size>' + ''.join(things)


# --- The same data -------------------------------------------------------------------------------------


@pytest.mark.parametrize('first', [0, 1])
def test_boxes_are_those_of_coco(first, tmp_path):
    corner = np.array([[0, 0], [9, 0], [9, 9.]])
    scenes = [*make_scenes(), Scene('corner', (50, 40), [('cat', corner)])]
    for scene in scenes:
        write(tmp_path / 'voc', {f'Annotations/{scene.stem}.xml': scene_xml(scene, first)})
        write_picture(tmp_path / f'voc/JPEGImages/{scene.stem}', scene.size)
    table = read(tmp_path / 'voc')
    other = table_of_coco(tmp_path / 'coco', scenes)
    for entry in other.parts['all']:
        for each in entry.objects:
            del each['segmentation']
    assert table.classes == other.classes == NAMES
    assert_same(table, other, 0)
    assert table.notes == (['1 boxes have a corner of 0 or with a fraction: pixels are counted from 0, not from 1']
                           if first == 0 else [])


@pytest.mark.parametrize('orientation, size, annotated', [
    (1, '50 40', (50, 40)), (6, '50 40', (50, 40)), (6, '40 50', (40, 50)), (6, '0 0', (40, 50)),
    (1, '40 50', (50, 40)), (1, '90 50', (50, 40)), (1, '', (50, 40)), (1, '50 x', (50, 40))])
def test_the_size_tells_which_pixels_a_tool_saw(orientation, size, annotated, tmp_path):
    width, _, height = size.partition(' ')
    root = small(tmp_path, size=f'<size><width>{width}</width><height>{height}</height></size>' if size else '')
    exif = Image.Exif()
    exif[0x112] = orientation
    write_picture(root / 'JPEGImages/1', (50, 40), exif=exif)
    table = read(root)
    assert content(table)['1'][0] == annotated
    assert table.notes == (['1 XML files have a wrong size; their boxes fit the image']
                           if size in ('40 50', '90 50') and orientation == 1 else [])


# --- Parts ---------------------------------------------------------------------------------------------


def test_lists_of_images(tmp_path):
    table = read(small(tmp_path))
    assert parts(table) == dict(train=['JPEGImages/1.jpg', 'JPEGImages/2.jpg'], val=['JPEGImages/3.jpg'])
    assert objects(table) == [('cat', [10, 20, 10, 20])] and table.notes == [] and table.classes == ['cat']


@pytest.mark.parametrize('lists, expected', [
    ({'Main/trainval.txt': '1\n2\n3', 'Main/test.txt': '7\n8'}, dict(train='123')),
    ({'Main/trainval.txt': '1\n2\n3', 'Main/val.txt': '2'}, dict(train='13', val='2')),
    ({'Main/train.txt': '1 1\r\n2 -1\r\n', 'Main/val.txt': '3  0\n', 'Main/cat_train.txt': '1 1'},
     dict(train='12', val='3')),
    ({'Segmentation/train.txt': '1', 'Segmentation/val.txt': '2', 'Layout/train.txt': '3 1'}, dict(train='1', val='2')),
    ({'../train.txt': './JPEGImages/1.jpg ./Annotations/1.xml\nJPEGImages\\2.jpg Annotations\\2.xml',
      '../val.txt': 'JPEGImages/3.jpg'}, dict(train='12', val='3'))])
def test_lists_in_their_variants(lists, expected, tmp_path):
    root = small(tmp_path)
    for file in root.glob('ImageSets/Main/*'):
        file.unlink()
    table = read(write(root, {f'ImageSets/{name}': text for name, text in lists.items()}))
    assert parts(table) == {part: [f'JPEGImages/{stem}.jpg' for stem in stems] for part, stems in expected.items()}
    left = 3 - sum(map(len, expected.values()))
    assert [note[:1] for note in table.notes if 'of images in no list' in note] == [str(left)] * bool(left)
    assert sum('test.txt lists no image with an XML file' in note for note in table.notes) == ('Main/test.txt' in lists)


def test_names_with_spaces_and_numbers(tmp_path):
    write(tmp_path, {'ImageSets/Main/train.txt': 'a 1\na 0  1\n', 'ImageSets/Main/val.txt': 'b 1.5\n',
                     **{f'Annotations/{stem}.xml': SIZE + BOX for stem in ('a 1', 'a 0', 'b 1.5')}},
          ['JPEGImages/a 1', 'JPEGImages/a 0', 'JPEGImages/b 1.5'])
    assert parts(read(tmp_path)) == {part: [f'JPEGImages/{stem}.jpg' for stem in stems]
                                     for part, stems in (('train', ['a 1', 'a 0']), ('val', ['b 1.5']))}


def test_a_list_with_missing_files(tmp_path):
    root = small(tmp_path)
    write(root, {'ImageSets/Main/train.txt': '1\n2\n9.5 b\n'})
    assert any('1 of 3 images in' in note and 'ImageSets/Main/train.txt are broken' in note and '9.5 b' in note
               for note in read(root).notes)
    write(root, {'ImageSets/Main/train.txt': '1\n2\n' + '\n'.join(f'x{i}' for i in range(11))})
    with pytest.raises(UserError, match='11 of 13 images in .*ImageSets/Main/train.txt are broken'):
        read(root)


@pytest.mark.parametrize('annotations, images', [('', ''), ('/annotations', '/images'), ('/labels', '/img')])
def test_parts_in_folders(annotations, images, tmp_path):
    """Roboflow's, and others; without lists."""
    files = {f'{part}{annotations}/{i}_jpg.rf.c0ffee.xml': SIZE + BOX for part in ('train', 'valid') for i in range(2)}
    write(tmp_path, files, [f'{part}{images}/{i}_jpg.rf.c0ffee' for part in ('train', 'valid') for i in range(2)])
    assert parts(read(tmp_path)) == {name: [f'{part}{images}/{i}_jpg.rf.c0ffee.jpg' for i in range(2)]
                                     for name, part in (('train', 'train'), ('val', 'valid'))}


def test_two_years_of_voc(tmp_path):
    for year in ('VOC2007', 'VOC2012'):
        small(tmp_path / 'VOCdevkit' / year)
    assert parts(read(tmp_path)) == {part: [f'VOCdevkit/{year}/JPEGImages/{i}.jpg' for year in ('VOC2007', 'VOC2012')
                                            for i in numbers] for part, numbers in (('train', '12'), ('val', '3'))}


def test_images_without_an_xml_file_are_told_of(tmp_path):
    write(tmp_path, {'1.xml': SIZE + BOX, '2.xml': SIZE}, ['1', '2', '3'])
    table = read(tmp_path)
    assert parts(table) == dict(all=['1.jpg', '2.jpg']) and objects(table, '2') == []
    assert table.notes == ['1 images have no XML file and are left out: 3.jpg']


# --- Images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('filename', [
    '', '<filename>1</filename>', '<filename>1.png</filename>', '<filename>old name.jpg</filename>', '<filename/>',
    '<filename>C:\\Users\\me\\1.JPG</filename>', '<folder>x</folder><filename>/home/me/1.jpg</filename>'])
def test_the_name_of_the_image(filename, tmp_path):
    assert parts(read(small(tmp_path, filename=filename)))['train'] == ['JPEGImages/1.jpg', 'JPEGImages/2.jpg']


def test_an_image_that_only_the_file_names(tmp_path):
    root = small(tmp_path, filename='<filename>one.png</filename>')
    (root / 'JPEGImages/1.jpg').rename(root / 'JPEGImages/one.jpg')
    assert parts(read(root))['train'] == ['JPEGImages/one.jpg', 'JPEGImages/2.jpg']


def test_the_same_name_in_two_folders(tmp_path):
    write(tmp_path, {f'Annotations/{part}/1.xml': SIZE + BOX for part in ('train', 'val')},
          ['JPEGImages/train/1', 'JPEGImages/val/1'])
    assert parts(read(tmp_path)) == dict(train=['JPEGImages/train/1.jpg'], val=['JPEGImages/val/1.jpg'])


# --- Objects -------------------------------------------------------------------------------------------


def test_what_is_read_of_an_object(tmp_path):
    part = '<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>'
    table = read(small(
        tmp_path, thing(1, 1, 50, 40, name=' dog '), thing(5, 6, 5, 6), thing(20, 40, 11, 21),
        thing('11.0', ' 21 ', '2e1', '40', more='<difficult>1</difficult><truncated>1</truncated><pose>Left</pose>'),
        thing(3, 3, 9, 9, more=part)))
    assert objects(table) == [('dog', [0, 0, 50, 40]), ('cat', [4, 5, 1, 1]), ('cat', [10, 20, 10, 20]),
                              ('cat', [10, 20, 10, 20]), ('cat', [2, 2, 7, 7])]
    assert [each['iscrowd'] for each in table.parts['train'][0].objects] == [0, 0, 0, 1, 0]
    assert table.notes == ['1 objects have their corners exchanged, which is mended',
                           "1 objects are difficult: like COCO's crowds, they are neither learned nor scored"]


def test_a_polygon_of_roboflow(tmp_path):
    polygon = '<polygon><x1>11</x1><y1>21</y1><x2>20.5</x2><y2>21</y2><x3>15</x3><y3>40</y3></polygon>'
    table = read(small(tmp_path, thing(11, 21, 20, 40, more=polygon), BOX))
    (_, box, outline), (_, _, rectangle) = content(table)['1'][1]
    assert outline.tolist() == [11, 21, 20.5, 21, 15, 40] and box.tolist() == [10, 20, 10, 20]
    assert rectangle.tolist() == [10, 20, 20, 20, 20, 40, 10, 40]
    assert any('3 of 4 objects are boxes, and the others have outlines' in note for note in table.notes)


BROKEN = {
    '<object><bndbox/></object>': 'without a name', thing(1, 2, 3, 4, name=' '): 'without a name',
    '<object><name>cat</name></object>': 'without a whole box (bndbox)',
    thing(1, 2, 3, ''): 'without a whole box (bndbox)',
    thing(1, 2, 3, 'x'): 'without a whole box (bndbox)', thing(1, 2, 'nan', 4): 'with corners that no image has',
    thing(1, 2, 'inf', 4): 'with corners that no image has', thing(1, 2, 1e6, 4): 'with corners that no image has',
    '<object><name>cat</name><robndbox><cx>1</cx></robndbox></object>': 'with a turned box (robndbox)',
    thing(1, 2, 3, 4, more='<polygon><x1>1</x1></polygon>'): 'with a broken polygon',
    thing(1, 2, 3, 4, more='<polygon><x1>1</x1><y2>1</y2></polygon>'): 'with a broken polygon'}


@pytest.mark.parametrize('broken', BROKEN)
def test_a_broken_object_is_left_out_and_named(broken, tmp_path):
    table = read(small(tmp_path, BOX, broken, thing(1, 2, 30, 4, name='dog')))
    assert [name for name, _ in objects(table)] == ['cat', 'dog']
    assert table.notes == [f'1 of 5 shapes below {tmp_path} are broken and are left out (1 '
                           f'{BROKEN[broken]}: object 2 of Annotations/1.xml)']


FILES = {
    '': 'whose XML is broken (no element found)', '<?xml version="1.0"?><annotation><object>': 'no element found',
    '<?xml version="1.0"?><a/>': 'that are not of Pascal VOC',
    '<?xml version="1.0" encoding="wrong"?><a/>': 'whose XML is broken',
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>': 'document type declaration'}


@pytest.mark.parametrize('text', FILES)
def test_a_broken_file_is_left_out_and_named(text, tmp_path):
    root = small(tmp_path)
    (root / 'Annotations/1.xml').write_text(text)
    table = read(root)
    assert parts(table)['train'] == ['JPEGImages/2.jpg']
    assert len(table.notes) == 1 and FILES[text] in table.notes[0] and 'Annotations/1.xml' in table.notes[0]


@pytest.mark.parametrize('size, message', [
    ('25 20', 'with another size than the image'), ('100 80', 'with another size than the image'),
    ('19 70', 'with another size than the image')])
def test_an_image_that_was_scaled(size, message, tmp_path):
    width, height = size.split()
    root = small(tmp_path, thing(11, 21, 90 if size == '19 70' else 20, 40),
                 size=f'<size><width>{width}</width><height>{height}</height></size>')
    assert any(message in note for note in read(root).notes)


def test_images_that_are_missing_or_damaged(tmp_path):
    root = small(tmp_path)
    (root / 'JPEGImages/1.jpg').unlink()
    (root / 'JPEGImages/2.jpg').write_bytes(b'no image')
    write(root, {'ImageSets/Main/train.txt': '1\n2\n4', 'Annotations/4.xml': SIZE + BOX}, ['JPEGImages/4'])
    table = read(root)
    assert parts(table)['train'] == ['JPEGImages/4.jpg']
    assert table.notes == [f'2 of 4 XML files below {root} are broken and are left out (1 whose image is missing: '
                           'Annotations/1.xml; 1 whose image cannot be read: Annotations/2.xml)']


def test_many_broken_files_are_an_error(tmp_path):
    write(tmp_path, {f'{i}.xml': SIZE + BOX for i in range(13)}, ['1', '2'])
    with pytest.raises(UserError, match='11 of 13 XML files below .* are broken .11 whose image is missing: 0.xml'):
        read(tmp_path)


def test_xml_of_other_tools_is_not_voc(tmp_path):
    (tmp_path / 'annotations.xml').write_text('<annotations><image/></annotations>')
    assert voc.read(Files(tmp_path), tmp_path) is None
