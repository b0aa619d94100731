"""COCO files as tools write them: what is left out comes back to the same numbers; what is broken is named."""
import copy
import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dwnet.data.coco_file import read_coco, repaired, with_classes
from dwnet.errors import UserError

SQUARE = [10, 10, 30, 10, 30, 30]


@pytest.fixture(scope='module')
def whole(small_digits) -> dict:
    return json.loads((small_digits / 'annotations/train.json').read_text())


@pytest.fixture
def repair(whole, monkeypatch) -> Callable:
    """Repairs the content after a change; gives the content and the log."""

    def repair(change: Callable) -> tuple[dict, list[str]]:
        content = copy.deepcopy(whole)
        change(content)
        before, lines = copy.deepcopy(content), []
        monkeypatch.setattr('dwnet.data.coco_file.print_log', lambda line, **_: lines.append(line))
        mended = repaired(content, 'train.json')
        assert str(content) == str(before), 'the argument was changed'  # str: NaN is not NaN
        if lines:  # what is mended is whole, so that it can be written and read again
            lines = [*lines]
            assert repaired(mended, 'train.json') == mended and len(lines) <= 3
        return mended, lines

    return repair


def each(change: Callable) -> Callable:
    return lambda content: [change(annotation) for annotation in content['annotations']] and None


def numbers(content: dict) -> np.ndarray:
    return np.array([[*entry['bbox'], entry['area'], entry['iscrowd'], entry['image_id'], entry['category_id']]
                     for entry in content['annotations']])


def runs(annotation: dict) -> None:
    """Writes an RLE without compression."""
    pixels = coco_mask.decode(annotation['segmentation']).ravel('F')
    ends = np.flatnonzero(np.diff(pixels, prepend=0, append=0 if pixels[-1] else 1))
    annotation['segmentation']['counts'] = np.diff(ends, prepend=0).tolist()
    assert sum(annotation['segmentation']['counts']) == len(pixels)


def outline(annotation: dict) -> None:
    """The object is its box, as a polygon of pixels."""
    x, y, w, h = annotation['bbox']
    annotation.update(segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]], area=w * h)


def relative(annotation: dict) -> None:
    annotation['bbox'] = [value / 128 for value in annotation['bbox']]


def corners(annotation: dict) -> None:
    x, y, w, h = annotation['bbox']
    annotation['bbox'] = [x, y, x + w, y + h]


def text_ids(content: dict) -> None:
    for entry in [*content['images'], *content['categories'], *content['annotations']]:
        entry['id'] = str(entry['id'])
    for entry in content['annotations'][::2]:  # a tool may write one as text and the other as a number
        entry.update(image_id=str(entry['image_id']), category_id=float(entry['category_id']))


def text_sizes(content: dict) -> None:
    for image in content['images']:
        image.update(width=str(image['width']), height=float(image['height']))


def larger(annotation: dict) -> None:
    """The mask is of a larger image, of which the image is the upper left part."""
    pixels = np.pad(coco_mask.decode(annotation['segmentation']), ((0, 40), (0, 9)))
    rle = coco_mask.encode(np.asfortranarray(pixels))
    annotation['segmentation'] = {**rle, 'counts': rle['counts'].decode()}


MENDED = {  # name → change, what the log says
    'no area': (each(lambda a: a.pop('area')), r'area computed from the mask \(N\)'),
    'area null': (each(lambda a: a.update(area=None)), r'area computed from the mask \(N\)'),
    'area zero': (each(lambda a: a.update(area=0)), r'area computed from the mask \(N\)'),
    'no bbox': (each(lambda a: a.pop('bbox')), r'box computed from the mask \(N\)'),
    'bbox null': (each(lambda a: a.update(bbox=None)), r'box computed from the mask \(N\)'),
    'bbox empty': (each(lambda a: a.update(bbox=[])), r'box computed from the mask \(N\)'),
    'bbox zero': (each(lambda a: a.update(bbox=[0, 0, 0, 0])), r'box computed from the mask \(N\)'),
    'bbox of nulls': (each(lambda a: a.update(bbox=[None] * 4)), r'box computed from the mask \(N\)'),
    'neither': (each(lambda a: [a.pop('bbox'), a.pop('area')]),
                r'box computed from the mask \(N\); area computed from the mask \(N\)'),
    'no iscrowd': (each(lambda a: a.pop('iscrowd')), r'iscrowd set to 0 \(N\)'),
    'iscrowd null': (each(lambda a: a.update(iscrowd=None)), r'iscrowd set to 0 \(N\)'),
    'iscrowd false': (each(lambda a: a.update(iscrowd=False)), None),
    'ids as text': (text_ids, r'ids turned into whole numbers \(\d+\)'),
    'sizes as text': (text_sizes, r'widths and heights turned into whole numbers \(\d+\)'),
    'ids from 0': (each(lambda a: a.update(id=a['id'] - 1)), r'ids of annotations numbered from 1 \(N\)'),
    'ids that are names': (each(lambda a: a.update(id=f'é{a["id"]}')), r'ids of annotations numbered from 1 \(N\)'),
    'corners': (each(corners), r'boxes written as \[left, top, right, bottom\] turned into \[x, y, width, height\] '
                r'\(N\); area computed from the mask \(N\)'),
    'relative': (each(relative), r'boxes written as \[x, y, width, height\] relative to the image turned into '
                 r'\[x, y, width, height\] \(N\); area computed from the mask \(N\)'),
    'runs': (each(runs), None),
    'masks of another size': (each(larger), r'mask cut or padded to the size of its image \(N\)'),
    'runs alone': (each(lambda a: [runs(a), a.pop('bbox'), a.pop('area')]),
                   r'box computed from the mask \(N\); area computed from the mask \(N\)'),
}


@pytest.mark.parametrize('kind', MENDED)
def test_what_tools_leave_out_is_computed(kind, whole, repair):
    change, said = MENDED[kind]
    mended, lines = repair(change)
    assert np.abs(numbers(mended) - numbers(whole)).max() < 1e-9
    number = len(whole['annotations'])
    assert [entry['id'] for entry in mended['annotations']] == [*range(1, number + 1)]
    expected = said and f'train.json is mended as it is read: {said}'.replace('(N', f'({number}')
    assert len(lines) == bool(said) and all(re.fullmatch(expected, line) for line in lines), lines


POLYGONS = {
    'no bbox': (each(lambda a: a.pop('bbox')), 'box computed from the mask'),
    'no area': (each(lambda a: a.pop('area')), 'area computed from the mask'),
    'two parts': (each(lambda a: a.update(bbox=None, segmentation=[
        a['segmentation'][0][:6], [*a['segmentation'][0][4:], *a['segmentation'][0][:2]], [1, 2]])),
                  'box computed from the mask'),
    'relative': (each(lambda a: a.update(bbox=None, segmentation=[[v / 128 for v in a['segmentation'][0]]])),
                 'polygons relative to the image turned into pixels'),
    'boxes alone': (each(lambda a: [a.pop('segmentation'), a.update(area=0)]), 'area computed from the box'),
    'boxes and empty masks': (each(lambda a: a.update(segmentation=[[]], area=0)), 'area computed from the box'),
}


@pytest.mark.parametrize('kind', POLYGONS)
def test_polygons_and_boxes(kind, whole, repair):
    change, said = POLYGONS[kind]

    def both(content: dict) -> None:
        each(outline)(content)
        change(content)

    expected, _ = repair(each(outline))
    mended, lines = repair(both)
    assert np.abs(numbers(mended) - numbers(expected)).max() < 1e-9
    assert len(lines) == 1 and f'{said} ({len(whole["annotations"])})' in lines[0]
    assert all(bool(entry.get('segmentation')) == ('boxes' not in kind) for entry in mended['annotations'])


def test_ids_that_are_names_are_kept(whole, repair):
    """One id that is no number makes all of its kind text: COCO's evaluation sorts the ids."""

    def change(content: dict) -> None:
        content['images'][3]['id'] = 'third'
        for entry in content['annotations']:
            if entry['image_id'] == whole['images'][3]['id']:
                entry['image_id'] = 'third'

    mended, _ = repair(change)
    assert len(mended['annotations']) == len(whole['annotations'])
    assert {type(entry['id']) for entry in mended['images']} == {str}
    assert {type(entry['id']) for entry in mended['categories']} == {int}
    assert {entry['image_id'] for entry in mended['annotations']} <= {entry['id'] for entry in mended['images']}


def test_categories_of_one_name_are_one(whole, repair):
    """As in files that were merged; mmdet would shift the labels behind the second."""

    def change(content: dict) -> None:
        content['categories'].insert(0, dict(content['categories'][4], id=77))
        for entry in content['annotations'][::2]:
            if entry['category_id'] == whole['categories'][4]['id']:
                entry['category_id'] = 77

    mended, lines = repair(change)
    names = [category['name'] for category in mended['categories']]
    assert len(set(names)) == len(names) == 10 and 'categories of the same name joined (1)' in lines[0]
    of = {category['id']: category['name'] for category in mended['categories']}
    theirs = {category['id']: category['name'] for category in whole['categories']}
    assert ([of[entry['category_id']] for entry in mended['annotations']]
            == [theirs[entry['category_id']] for entry in whole['annotations']])


BROKEN = {
    'without \'bbox\'': lambda a: [a.pop('bbox'), a.pop('segmentation')],
    'with the id of another': lambda a: a.update(id=1),
    'with an id that is none': lambda a: a.update(id=None),
    'of an unknown image': lambda a: a.update(image_id=999),
    'of an unknown category': lambda a: a.update(category_id=99),
    'with an iscrowd that is neither 0 nor 1': lambda a: a.update(iscrowd='x'),
    'with a box far outside the image': lambda a: a['bbox'].__setitem__(0, float('nan')),
    'with a box far outside the image ': lambda a: a['bbox'].__setitem__(2, 1e300),
    'with a box outside the image': lambda a: a['bbox'].__setitem__(0, 128),
    'with a box smaller than a pixel': lambda a: a['bbox'].__setitem__(3, .5),
    'with a box smaller than a pixel ': lambda a: a['bbox'].__setitem__(3, -5),
    'of another form': lambda a: a.update(bbox='x'),
    'with a mask of another size than the image': lambda a: a['segmentation'].update(size=[2**20, 2**20]),
    'with a mask that is none': lambda a: a['segmentation'].update(counts=[1, 2]),
    'without a mask': lambda a: a.update(segmentation=[[1, 2, 3, 4]]),
    'without a mask ': lambda a: a.update(segmentation=[]),
    'with a polygon far outside the image': lambda a: a.update(segmentation=[SQUARE, [1e9, *SQUARE[1:]]]),
}


@pytest.mark.parametrize('fault', BROKEN)
def test_a_broken_annotation_is_named_and_left_out(fault, whole, repair):
    mended, lines = repair(lambda content: BROKEN[fault](content['annotations'][7]) and None)
    assert len(lines) == 1 and f'({fault.strip()}: ' in lines[0] and '1 of ' in lines[0] and 'train.json' in lines[0]
    kept = [entry['id'] for entry in mended['annotations']]
    assert kept == [entry['id'] for i, entry in enumerate(whole['annotations']) if i != 7]


def test_a_polygon_in_place_of_a_mask_is_sound(repair):
    assert not repair(lambda content: content['annotations'][7].update(segmentation=[SQUARE]))[1]


def test_a_broken_image_goes_with_its_annotations(repair):
    mended, lines = repair(lambda content: content['images'][3].update(width=float('nan')))
    assert [image['id'] for image in mended['images']] == [*range(3), *range(4, 24)]
    assert 'without a size: 3' in lines[0] and 'of an unknown image: ' in lines[1]


def test_long_lists_are_cut(whole, repair):
    """Eleven may be left out of these; the log names some."""
    with pytest.raises(UserError) as error:
        repair(each(lambda a: a.update(category_id=99)))
    every = '{0} of {0} annotations of train.json'.format(len(whole['annotations']))
    assert f'{every} are broken (of an unknown category: 1, 2, 3' in str(error.value)
    assert len(str(error.value)) < 200


def test_boxes_in_no_certain_form_are_an_error(repair):

    def change(content: dict) -> None:
        each(corners)(content)
        content['annotations'][7]['bbox'][2] = content['annotations'][7]['bbox'][0]

    with pytest.raises(UserError, match=r'boxes of train.json end far outside their images, and \d+ fit as \[left'):
        repair(change)


@pytest.mark.parametrize('text, message', [
    ('{"images": [', 'train.json is no whole COCO annotation file'),
    ('[' * 100_000, 'train.json is no whole COCO annotation file'),
    ('{"images": [], "annotations": []}', "no whole COCO annotation file .'categories' is missing")])
def test_a_file_that_is_not_whole(text, message, tmp_path):
    (tmp_path / 'train.json').write_text(text)
    with pytest.raises(UserError, match=message):
        read_coco(str(tmp_path / 'train.json'))


@pytest.mark.parametrize('ids, new', [([3, 1], [2, 4]), (['a', '1'], ['2', '3']), ([], [1, 2])])
def test_classes_that_a_file_lacks_get_ids(ids, new):
    content = dict(categories=[dict(id=i, name=f'of {i}') for i in ids], images=[])
    names = ['cat', *(f'of {i}' for i in ids[:1]), 'dog']
    found = with_classes(content, names)
    assert [category['id'] for category in found['categories']] == [*ids, *new]
    assert [category['name'] for category in found['categories']][len(ids):] == ['cat', 'dog']
    assert len(content['categories']) == len(ids) and with_classes(found, names) == found
