"""CVAT's files: each kind of shape, and where images and parts are."""
import math
from pathlib import Path

import numpy as np
import pytest
from annotation_files import (
    CAT,
    DOG,
    SIZE,
    cvat_box,
    cvat_file,
    cvat_image,
    cvat_mask,
    cvat_polygon,
    element,
    picture,
    pixels,
    read,
)

from dwnet.data import cvat
from dwnet.data.files import Files
from dwnet.data.table import Table
from dwnet.errors import UserError


def one_cvat(root: Path, *shapes: str, **more) -> Table:
    """The table of an image with ``shapes`` and another with a polygon."""
    for name in 'ab':
        picture(root / f'images/{name}.jpg')
    cvat_file(root / 'annotations.xml', cvat_image('a.jpg', *shapes, **more),
              cvat_image('b.jpg', cvat_polygon('cat', CAT)))
    return read(cvat, root)


def test_shapes_of_cvat(tmp_path):
    """An ellipse as its equation has it, a mask row by row, a turned box."""
    table = one_cvat(tmp_path / 'my', element('ellipse', label='dog', cx=60, cy=40, rx=30, ry=10, rotation=30),
                     cvat_mask('dog', '1, 2, 2, 1', 50, 60, 3, 2),
                     cvat_box('dog', 20, 30, 60, 50, rotation=90.0))
    oval, mask, box = (each['segmentation'] for each in table.parts['all'][0].objects)
    y, x = np.mgrid[:SIZE[1], :SIZE[0]] + .5
    along, across = (math.cos(math.radians(30)) * (x - 60) + math.sin(math.radians(30)) * (y - 40),
                     math.cos(math.radians(30)) * (y - 40) - math.sin(math.radians(30)) * (x - 60))
    assert (pixels(oval, SIZE) ^ ((along / 30)**2 + (across / 10)**2 < 1)).sum() < 30  # at the edge
    expected = np.zeros(SIZE[::-1], bool)
    expected[60:62, 50:53] = [[0, 1, 1], [0, 0, 1]]
    np.testing.assert_array_equal(pixels(mask, SIZE), expected)
    np.testing.assert_allclose(np.sort(np.reshape(box, (-1, 2)), 0), [[30, 20], [30, 20], [50, 60], [50, 60]])
    assert table.classes == ['dog', 'cat']  # in CVAT's order, and without the bird, of which there is none


@pytest.mark.parametrize('degrees', [15, 330.5])
def test_a_turned_box_is_a_polygon(degrees, tmp_path):
    """The corners turn clockwise, as the pixels of an image do whose y goes down."""
    picture(tmp_path / 'my/a.jpg')
    cvat_file(tmp_path / 'my/a.xml', cvat_image('a.jpg', cvat_box('cat', 20, 30, 60, 50, rotation=degrees)))
    (each, ), = (entry.objects for entry in read(cvat, tmp_path / 'my').parts['all'])
    turn, centre = np.exp(1j * math.radians(degrees)), 40 + 40j
    expected = [centre + turn * (corner - centre) for corner in (20 + 30j, 60 + 30j, 60 + 50j, 20 + 50j)]
    np.testing.assert_allclose(each['segmentation'], [np.stack([np.real(expected), np.imag(expected)], 1).ravel()])


def test_turned_boxes_among_boxes_are_boxes(tmp_path):
    picture(tmp_path / 'my/a.jpg')
    cvat_file(tmp_path / 'my/a.xml', cvat_image('a.jpg', cvat_box('cat', 1, 2, 11, 22, rotation='0.00'),
                                                cvat_box('cat', 20, 30, 60, 50, rotation=90)))
    table = read(cvat, tmp_path / 'my')
    upright, turned = table.parts['all'][0].objects
    assert upright == dict(label=0, bbox=[1, 2, 10, 20]) and turned.keys() == {'label', 'bbox'}
    np.testing.assert_allclose(turned['bbox'], [30, 20, 20, 40])
    assert table.notes == ['1 of 2 boxes are turned; upright boxes around them count']


def test_boxes_among_polygons_have_masks(tmp_path):
    table = one_cvat(tmp_path / 'my', cvat_box('dog', 10, 20, 30, 40))
    np.testing.assert_array_equal(np.flatnonzero(pixels(table.parts['all'][0].objects[0]['segmentation'], SIZE).any(0)),
                                  np.arange(10, 30))
    assert table.notes == ['1 of 2 objects are boxes, and the others have outlines: the mask of a box is the whole box']


def test_other_shapes_of_cvat_are_counted(tmp_path):
    skeleton = element('skeleton', label='dog').replace('><', f'>{element("points", label="eye", points="1,2")}<')
    table = one_cvat(tmp_path / 'my', element('polyline', label='dog', points='1,2;3,4'), skeleton,
                     element('points', label='dog', points='1,2'), element('tag', label='bird', source='manual'),
                     cvat_polygon('dog', DOG, outside=1))
    assert table.notes == ['3 of 4 shapes cover no pixels and are left out (1 polyline, 1 skeleton, 1 points)']
    assert table.classes == ['cat'] and not table.parts['all'][0].objects


@pytest.mark.parametrize('drawn, fault', [
    (cvat_polygon('dog', [1, 1, 5, 5]), 'with fewer than 3 points'), (cvat_polygon('', DOG), 'without a label'),
    (cvat_box('dog', 1, 1, 'nan', 5), 'with a point far outside of the image'),
    (element('box', label='dog'), 'of another form'), (cvat_box('dog', 5, 5, 5, 9), 'without an area'),
    (element('polygon', label='dog', points='1,2;3;4,5'), 'of another form'),
    (cvat_mask('dog', '5', 0, 0, 2, 2), 'with a mask of another size than its box'),
    (cvat_mask('dog', '0, 99999999999', 0, 0, 2, 2), 'with a mask of another size than its box'),
    (cvat_mask('dog', '0, 4', 119, 0, 2, 2), 'with a mask that reaches out of the image')])
def test_broken_shapes_of_cvat_are_named(drawn, fault, tmp_path):
    table = one_cvat(tmp_path / 'my', cvat_polygon('cat', CAT), drawn)
    assert table.classes == ['cat'] and len(table.parts['all'][0].objects) == 1
    assert table.notes == [f'1 of 3 shapes below {tmp_path}/my are broken and are left out (1 {fault}: shape 2 of '
                           'images/a.jpg)']


@pytest.mark.parametrize('place, written, more, part', [
    ('images/a.jpg', 'a.jpg', {}, 'all'), ('a.jpg', 'a.jpg', dict(subset='default'), 'all'),
    ('images/Train/a.jpg', 'a.jpg', dict(subset='Train'), 'train'),
    ('images/x/a.jpg', 'x/a.jpg', dict(subset='Test'), 'test'),
    ('images/validation/a.jpg', 'validation/a.jpg', {}, 'val'), ('somewhere/a.png', r'D:\my\a.jpg', {}, 'all')])
def test_images_and_parts_of_cvat(place, written, more, part, tmp_path):
    picture(tmp_path / 'my' / place)
    cvat_file(tmp_path / 'my/annotations.xml', cvat_image(written, cvat_polygon('cat', CAT), **more))
    files = Files(tmp_path / 'my')
    table = cvat.read(files, tmp_path)
    assert {name: [entry.image for entry in entries] for name, entries in table.parts.items()} == {part: [place]}
    assert files.elsewhere == (place == 'somewhere/a.png')


def test_a_file_for_each_part(tmp_path):
    """Of two images with the same name the one of the part counts; the task's subset tells, and so does the folder."""
    for part in ('train', 'val'):
        picture(tmp_path / f'my/images/{part}/a.jpg')
    cvat_file(tmp_path / 'my/first.xml', cvat_image('a.jpg', cvat_polygon('cat', CAT)), meta='<subset>Train</subset>')
    cvat_file(tmp_path / 'my/val/second.xml', cvat_image('a.jpg', cvat_polygon('dog', DOG)))
    table = read(cvat, tmp_path / 'my')
    assert {part: [entry.image for entry in entries] for part, entries in table.parts.items()} == dict(
        train=['images/train/a.jpg'], val=['images/val/a.jpg'])
    assert table.form == 'CVAT (first.xml, val/second.xml)' and table.classes == ['dog', 'cat']


def test_missing_and_unlisted_images_of_cvat_are_named(tmp_path):
    picture(tmp_path / 'my/new.jpg')
    picture(tmp_path / 'my/scaled.jpg', (60, 40))
    for name in ('lost', 'scaled'):
        one_cvat(tmp_path / 'my')
        path = tmp_path / 'my/annotations.xml'
        another = cvat_image(f'{name}.jpg', cvat_polygon('cat', CAT))
        path.write_text(path.read_text().replace('<image', f'{another}<image', 1))
        (tmp_path / 'my/other.xml').write_text('<annotation/>')
        fault = dict(lost='whose file is missing', scaled='with another size than the image')[name]
        assert read(cvat, tmp_path / 'my').notes == [
            '1 XML files are none of CVAT and are left out: other.xml',
            f'1 of 3 images in XML files below {tmp_path}/my are broken and are left out (1 {fault}: {name}.jpg in '
            'annotations.xml)',
            f"{1 + (name == 'lost') + (name == 'scaled')} images have no entry in an XML file and are left out: "
            'new.jpg, scaled.jpg']


@pytest.mark.parametrize('content, reason', [
    ('<annotations>', 'no whole file of CVAT .*; export it again'), ('<annotations/>x', 'no whole file'),
    ('<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotations>&c;</annotations>', 'document type declaration'),
    ('<annotations><track id="0" label="cat"/></annotations>', 'tracks of a video; export it as "CVAT for images 1.1"'),
    ('<?xml version="1.0" encoding="nonsense"?><annotations/>', 'no whole file')])
def test_files_that_are_not_of_cvat_are_refused(content, reason, tmp_path):
    (tmp_path / 'my').mkdir()
    (tmp_path / 'my/annotations.xml').write_text(content)
    with pytest.raises(UserError, match=reason):
        read(cvat, tmp_path / 'my')


def test_no_cvat_file(tmp_path):
    (tmp_path / 'my').mkdir()
    (tmp_path / 'my/voc.xml').write_text('<annotation><object/></annotation>')
    assert read(cvat, tmp_path / 'my') is None
