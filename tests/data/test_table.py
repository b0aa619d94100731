"""Tables: parts, splits, images named twice, leaks; and what is written for the toolboxes."""
import json
import os
import types
from pathlib import Path

import pytest
from PIL import Image

from dwnet.data import folders
from dwnet.data.coco_file import read_coco
from dwnet.data.files import Files
from dwnet.data.own import read_own_data
from dwnet.data.table import Entry, Table, joined, leaks, settled, without_missing
from dwnet.errors import UserError


def some_files(root: Path, *names: str, content: bytes | None = None) -> Files:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() if content is None else content)
    return Files(root)


def box(x: int = 1) -> dict:
    return dict(label=0, bbox=[x, 1, 5, 5])


def numbered(number: int, folder: str = '', **truth) -> list[Entry]:
    return [Entry(f'{folder}{i}.jpg', **truth) for i in range(number)]


def settle(root: Path, **parts: list[Entry]) -> Table:
    files = some_files(root, *(entry.image for entries in parts.values() for entry in entries))
    return settled(Table('made', ['a', 'b'], parts), files)


def test_a_fifth_of_each_class_is_held_back(tmp_path):
    table = settle(tmp_path, all=[*numbered(10, 'a/', label=0), *numbered(5, 'b/', label=1), Entry('c.jpg', 1)])
    labels = {part: [entry.label for entry in entries] for part, entries in table.parts.items()}
    assert labels == dict(train=[0] * 8 + [1] * 5, val=[0] * 2 + [1])
    assert settle(tmp_path, all=[*numbered(10, 'a/', label=0), *numbered(5, 'b/', label=1), Entry('c.jpg', 1)]) == table


def test_images_with_and_without_objects_are_held_back_alike(tmp_path):
    table = settle(tmp_path, all=[*numbered(10, 'a/', objects=[box()]), *numbered(5, 'b/')])
    assert {part: [bool(entry.objects) for entry in entries] for part, entries in table.parts.items()} == dict(
        train=[True] * 8 + [False] * 4, val=[True] * 2 + [False])


@pytest.mark.parametrize('parts, expected, note', [
    (dict(train=5, val=2), dict(train=5, val=2), None),
    (dict(train=5, test=2), dict(train=5, val=2), 'there is no val: test validates'),
    (dict(train=10), dict(train=8, val=2), 'there is no val: a fifth of train is held back'),
    (dict(test=3, val=2, train=5), dict(train=5, val=2, test=3), None)])
def test_parts_that_are_there(parts, expected, note, tmp_path):
    table = settle(tmp_path, **{part: numbered(number, f'{part}/', label=0) for part, number in parts.items()})
    assert {part: len(entries) for part, entries in table.parts.items()} == expected
    assert [*table.parts] == [*expected]  # in this order
    assert len(table.notes) == bool(note) and (not note or note in table.notes[0])


def test_a_part_without_labels_is_left_out(tmp_path):
    table = settle(tmp_path, train=numbered(4, 't/', objects=[box()]), val=numbered(2, 'v/', objects=[box()]),
                   test=numbered(3, 'x/'))
    assert [*table.parts] == ['train', 'val'] and table.notes == ['3 images of test have no labels: test is left out']


@pytest.mark.parametrize('parts, message', [
    (dict(all=[]), 'nothing to train with: no image has a label'),
    (dict(all=numbered(3)), 'nothing to train with: no image has a label'),
    (dict(val=numbered(3, label=0)), 'nothing to train with: only val; call a part train'),
    (dict(all=numbered(1, label=0)), 'too few images'),
    (dict(all=[Entry('a.jpg', 0), Entry('b.jpg', 1)]), 'too few images'),
    (dict(train=numbered(2, 't/', label=0), all=numbered(2, label=0)), 'parts train, and 2 images in none of them'),
    (dict(all=[Entry('a.jpg', 0), Entry('a.jpg', 1)]), 'a.jpg is named twice in all, with different labels')])
def test_what_cannot_be_settled(parts, message, tmp_path):
    with pytest.raises(UserError, match=message):
        settle(tmp_path, **parts)


def test_the_objects_of_an_image_named_twice_are_joined(tmp_path):
    twice = [Entry('0.jpg', objects=[box(1), box(2)]), Entry('0.jpg', objects=[box(2), box(3)])]
    table = settle(tmp_path, train=[*twice, *numbered(3, 't/')], val=numbered(2, 'v/', objects=[box()]))
    assert table.parts['train'][0].objects == [box(1), box(2), box(3)]
    assert table.notes == ['1 images of train are named twice, and their labels are joined']


def test_a_split_that_leaks_is_told_by_content(tmp_path):
    some_files(tmp_path, 'val/copy.jpg', 'train/0.jpg', content=b'the same')
    files = some_files(tmp_path, 'train/1.jpg', 'val/1.jpg')  # of equal size and other content
    parts = dict(train=[Entry('train/0.jpg', 0), Entry('train/1.jpg', 0)],
                 val=[Entry('val/copy.jpg', 0), Entry('val/1.jpg', 0), Entry('train/1.jpg', 0)])
    (note, ) = leaks(settled(Table('made', ['a'], parts), files).parts, tmp_path)
    assert note.startswith('2 images are in train and in val, byte by byte') and 'train/0.jpg = val/copy.jpg' in note
    assert 'train/1.jpg' in note and note.endswith('the score of val is too good')


def test_a_few_missing_images_are_left_out_and_many_are_an_error():
    there, notes = {f'{i}.jpg' for i in range(95)}, []

    def find(entry: Entry) -> str | None:
        return entry.image if entry.image in there else None

    assert len(without_missing(numbered(100), find, 'all.json', notes)) == 95
    assert notes == ['5 of 100 images that all.json names are missing and are left out: 95.jpg, 96.jpg, 97.jpg, '
                     '98.jpg, 99.jpg']
    with pytest.raises(UserError, match='all.json names 15 of 110 images that are not below the data root: 95.jpg'):
        without_missing(numbered(110), find, 'all.json', notes)


# --- What is written -------------------------------------------------------------------------------------


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (4, 4)).save(path)


def test_data_are_read_again_only_if_they_have_changed(tmp_path):
    read = []

    def counted(files: Files, out: Path) -> Table:
        read.append(files.root)
        return folders.read(files, out)

    form = types.SimpleNamespace(NAME='folders', NEEDS='', read=counted)
    root, out = tmp_path / 'my data, new', tmp_path / 'work/data'
    for name in ('a/1', 'a/2', 'b/1', 'b/2 (x)'):
        picture(root / f'{name}.jpg')
    first = read_own_data([root], 'classification', [form], out)
    assert read_own_data([root], 'classification', [form], out) == first and len(read) == 1
    assert sorted((out / 'train.txt').read_text().splitlines() + (out / 'val.txt').read_text().splitlines()) == [
        'a/1.jpg 0', 'a/2.jpg 0', 'b/1.jpg 1', 'b/2 (x).jpg 1']
    picture(root / 'b/3.jpg')
    assert read_own_data([root], 'classification', [form], out).sizes == dict(train=3, val=2) and len(read) == 2
    (out / 'val.txt').unlink()
    (out / 'data.json').write_text((out / 'data.json').read_text().replace('"a"', '"z"'))
    assert read_own_data([root], 'classification', [form], out).classes == ['a', 'b'] and len(read) == 3
    (out / 'data.json').write_text('{')
    assert read_own_data([root], 'classification', [form], out).classes == ['a', 'b'] and len(read) == 4
    moved = root.rename(tmp_path / 'moved')
    assert read_own_data([moved], 'classification', [form], out).root == moved and len(read) == 5


def test_objects_become_a_coco_file(tmp_path):
    for name in '0123456789':
        picture(tmp_path / f'my/images/{name}.jpg')
    entries = [Entry(f'images/{i}.jpg', size=(4, 4), objects=[
        dict(label=i % 2, bbox=[0, 0, 2, 3], area=6, segmentation=[[0, 0, 2, 0, 2, 3]])]) for i in range(10)]
    table = Table('made', ['x', 'y'], dict(all=entries))
    form = types.SimpleNamespace(NAME='made', NEEDS='', read=lambda files, out: table)
    data = read_own_data([tmp_path / 'my'], 'detection', [form], tmp_path / 'work/data')
    assert data.sizes == dict(train=8, val=2) and data.with_masks
    contents = {part: json.loads(Path(found['ann_file']).read_text()) for part, found in data.parts.items()}
    for content in contents.values():
        assert content['categories'] == [dict(id=1, name='x'), dict(id=2, name='y')]
        names = {image['id']: image['file_name'] for image in content['images']}
        for number, annotation in enumerate(content['annotations'], start=1):
            assert annotation['id'] == number and annotation['bbox'] == [0, 0, 2, 3] and 'label' not in annotation
            assert annotation['category_id'] == 1 + int(names[annotation['image_id']][-5]) % 2


def test_several_roots_are_joined_by_the_names_of_their_classes(tmp_path):
    for name in ('one/cat', 'one/dog', 'two/dog', 'two/owl'):
        for i in range(5):
            picture(tmp_path / name / f'{i}{name[-1]}.jpg')
    (tmp_path / 'one/cat/0t.jpg').write_bytes(b'a copy')
    (tmp_path / 'two/owl/1l.jpg').write_bytes(b'a copy')
    data = read_own_data([tmp_path / 'one', tmp_path / 'two'], 'classification', [folders], tmp_path / 'work')
    assert data.root == tmp_path and data.classes == ['cat', 'dog', 'owl'] and data.sizes == dict(train=16, val=4)
    lines = [line for part in data.parts.values() for line in Path(part['ann_file']).read_text().splitlines()]
    assert {line.rpartition('/')[0]: line[-1] for line in lines} == {
        'one/cat': '0', 'one/dog': '1', 'two/dog': '1', 'two/owl': '2'}
    moved = joined([Table('a', ['x', 'y'], dict(train=[Entry('1.jpg', objects=[box()], mask='/out/1.png')])),
                    Table('b', ['y'], dict(train=[Entry('1.jpg', (0, ), objects=[box()])]))], ['one', 'two'])
    assert moved == Table('a; b', ['x', 'y'], dict(train=[
        Entry('one/1.jpg', objects=[box()], mask='/out/1.png'),
        Entry('two/1.jpg', (1, ), objects=[{**box(), 'label': 1}])]))


@pytest.mark.parametrize('name', [b'line\nbreak', b'caf\xe9'])
def test_names_that_a_list_of_labels_cannot_hold(name, tmp_path):
    for each in ('a/1', 'a/2', 'b/1', 'b/2'):
        picture(tmp_path / f'my/{each}.jpg')
    os.rename(tmp_path / 'my/b/2.jpg', os.fsencode(tmp_path / 'my/b/') + b'/' + name + b'.jpg')
    with pytest.raises(UserError, match='1 images below .* no list can hold.*: rename b/'):
        read_own_data([tmp_path / 'my'], 'classification', [folders], tmp_path / 'out')


def test_boxes_that_stick_out_keep_their_place(tmp_path):
    """The numbers would also fit as those of boxes around a centre, and their form is known here."""
    for i in range(5):
        picture(tmp_path / f'my/{i}.jpg')
    box = [30, 30, 45, 30]
    entries = [Entry(f'{i}.jpg', size=(64, 64), objects=[dict(label=0, iscrowd=0, bbox=box)]) for i in range(5)]
    form = types.SimpleNamespace(NAME='own', NEEDS='', read=lambda *_: Table('own', ['a'], dict(all=entries)))
    data = read_own_data([tmp_path / 'my'], 'detection', [form], tmp_path / 'out')
    for part in data.parts.values():
        assert all(each['bbox'] == box for each in read_coco(part['ann_file'])['annotations'])
