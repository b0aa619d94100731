"""Folders of classes, wherever they lie below the root."""
import os
from pathlib import Path

import pytest
from PIL import Image

from dwnet.data import folders
from dwnet.data.files import Files
from dwnet.data.table import Table
from dwnet.errors import UserError

PARTS = dict(train=dict(cat=3, dog=2), val=dict(cat=1, dog=1))


def images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(root / name)
    return root


def read(root: Path) -> Table:
    return folders.read(Files(root), root)


def counts(table: Table) -> dict[str, dict[str, int]]:
    return {part: {name: sum(entry.label == i for entry in entries) for i, name in enumerate(table.classes)}
            for part, entries in table.parts.items()}


@pytest.mark.parametrize('layout', [
    '{part}/{label}/{i}.jpg', '{part}/{label}/{i}.JPEG', 'images/{part}/{label}/{i}.jpg', '{part}/{label}/x/{i}.png',
    'a/b c/{part}/{label}/{i}.jpg', '{part}/images/{label}/{i}.jpg', '{label}/{part}/{i}.jpg',
    'set/{label}/{part}/{i}.jpg'])
def test_layouts_with_parts(layout, tmp_path):
    images(tmp_path, *(layout.format(part=part, label=label, i=i) for part, labels in PARTS.items()
                       for label, number in labels.items() for i in range(number)))
    table = read(tmp_path)
    assert counts(table) == PARTS and not table.notes


@pytest.mark.parametrize('layout', ['{label}/{i}.jpg', 'images/{label}/{i}.jpg', 'a/b/{label}/{i}.jpg',
                                    '{label}/more/{i}.jpg', '{label}/{i}/x.jpg'])
def test_layouts_without_parts(layout, tmp_path):
    images(tmp_path, *(layout.format(label=label, i=i) for label, number in PARTS['train'].items()
                       for i in range(number)))
    assert counts(read(tmp_path)) == dict(all=PARTS['train'])


def test_one_class(tmp_path):
    with pytest.raises(UserError, match='has one class, cat'):
        read(images(tmp_path, 'cat/1.jpg', 'cat/more/2.jpg', 'cat/others/3.jpg'))


def test_links_and_hidden_files(tmp_path):
    root = images(tmp_path / 'my', 'cat/1.jpg', 'cat/2.jpg', 'dog/1.jpg', 'dog/2.jpg', 'dog/.3.jpg', '.trash/x/1.jpg')
    images(tmp_path / 'elsewhere', 'a.jpg', 'b/c.jpg')
    os.symlink(tmp_path / 'elsewhere', root / 'cat/more')
    os.symlink(tmp_path / 'elsewhere/a.jpg', root / 'dog/linked.jpg')
    os.symlink(root, root / 'dog/loop')
    table = read(root)
    assert counts(table) == dict(all=dict(cat=4, dog=3))


def test_images_beside_the_classes_are_told(tmp_path):
    table = read(images(tmp_path, 'cat/1.jpg', 'cat/2.jpg', 'dog/1.jpg', 'dog/2.jpg', 'title.png'))
    assert table.notes == ['1 images lie outside of the folders of classes and are left out: title.png']


def test_two_folders_for_one_part(tmp_path):
    root = images(tmp_path, *(f'{part}/{label}/1.jpg' for part in ('train', 'val', 'valid') for label in 'ab'))
    with pytest.raises(UserError, match='two folders for one part, val, valid: leave one'):
        read(root)
