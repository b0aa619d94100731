"""The files below a data root, and how they are found by the names in annotations."""
import os
import time

import pytest

from dwnet.data.files import Files, part_in, part_of
from dwnet.errors import UserError


def files(root, *names: str, **options) -> Files:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return Files(root, **options)


@pytest.mark.parametrize('name, part', [
    ('train', 'train'), ('Training', 'train'), ('VALID', 'val'), ('testing', 'test'), ('trainer', None)])
def test_names_of_parts(name, part):
    assert part_of(name) == part


@pytest.mark.parametrize('name, part', [
    ('annotations/instances_train2017.json', 'train'), ('valid/_annotations.coco.json', 'val'), ('a/b.json', None),
    ('my-test_set.json', 'test'), ('restrained.json', None), ('training_data/val/1.jpg', 'val'),
    ('test_rig/train.json', 'train')])
def test_parts_in_paths(name, part):
    assert part_in(name) == part


def test_what_is_no_data_is_not_listed(tmp_path):
    found = files(tmp_path, 'b.JPG', 'a/1.png', 'a/.hidden.png', '.ipynb_checkpoints/1.png', '__MACOSX/a/._1.png',
                  'a/x.txt', 'runs/old/curves.png', without=tmp_path / 'runs')
    assert found.names == ['a/1.png', 'a/x.txt', 'b.JPG'] and found.images == ['a/1.png', 'b.JPG']
    assert found.folders() == ['a'] and found.images_below('a') == ['a/1.png'] and found.ending('.jpg') == ['b.JPG']


def test_links_are_followed_once_around(tmp_path):
    files(tmp_path / 'elsewhere', '1.jpg', 'deep/2.jpg')
    root = tmp_path / 'my'
    (root / 'cat').mkdir(parents=True)
    os.symlink(tmp_path / 'elsewhere', root / 'cat/more')
    os.symlink(root, tmp_path / 'elsewhere/deep/back')
    os.symlink(root / 'gone.jpg', root / 'lost.jpg')
    found = Files(root)
    assert found.images == ['cat/more/1.jpg', 'cat/more/deep/2.jpg']
    assert any('back leads back to a folder above it' in note for note in found.notes)
    assert any('lost.jpg is a link to a file that is missing' in note for note in found.notes)


def test_images_that_cannot_be_read_are_counted(tmp_path):
    assert files(tmp_path, 'a.jpg', 'b.HEIC', 'c.heic', 'd.svg').notes == [
        '2 files .heic, 1 files .svg are left out, since they cannot be read: convert them']


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='needs a user who is not root')
def test_a_closed_folder_is_an_error(tmp_path):
    (tmp_path / 'closed').mkdir(mode=0)
    with pytest.raises(UserError, match='closed cannot be read'):
        Files(tmp_path)


@pytest.mark.parametrize('written, near, part, expected, elsewhere', [
    ('images/a/1.jpg', '', None, 'images/a/1.jpg', 0),
    ('1.jpg', 'images/a', None, 'images/a/1.jpg', 0),
    ('../images/a/1.jpg', 'annotations', None, 'images/a/1.jpg', 0),
    (r'images\a\1.jpg', '', None, 'images/a/1.jpg', 0),
    (r'C:\Users\me\images\b\1.jpg', '', None, 'images/b/1.jpg', 1),
    ('/home/me/data/b/1.jpg', '', None, 'images/b/1.jpg', 1),
    ('file:///home/me/b/1.jpg', '', None, 'images/b/1.jpg', 1),
    ('https://host/b/zwei%202.jpg?token=x', '', None, 'images/b/zwei 2.jpg', 1),
    ('ZWEI 2.JPG', '', None, 'images/b/zwei 2.jpg', 1),
    ('zwei 2.png', '', None, 'images/b/zwei 2.jpg', 1),
    ('3.jpg', '', 'val', 'valid/3.jpg', 1),
    ('3.jpg', 'train', 'val', 'train/3.jpg', 0),
    ('4.jpg', '', None, None, 0), ('', '', None, None, 0), ('..', '', None, None, 0)])
def test_images_are_found_by_what_annotations_say(written, near, part, expected, elsewhere, tmp_path):
    found = files(tmp_path, 'images/a/1.jpg', 'images/b/1.jpg', 'images/b/zwei 2.jpg', 'train/3.jpg', 'valid/3.jpg',
                  'images/b/1.txt')
    assert found.locate(written, near, part) == expected and found.elsewhere == elsewhere


def test_the_root_may_be_written_out(tmp_path):
    assert files(tmp_path, 'a/1.jpg', 'b/1.jpg').locate(f'{tmp_path}/a/1.jpg') == 'a/1.jpg'


def test_a_name_that_two_images_have_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r'several images .* are called 1.jpg \(a/1.jpg, b/1.jpg\), and .* only 1.jpg'):
        files(tmp_path, 'a/1.jpg', 'b/1.jpg').locate('1.jpg')


def test_the_fingerprint_tells_of_changes(tmp_path):
    first = files(tmp_path, 'a/1.jpg').fingerprint()
    assert Files(tmp_path).fingerprint() == first
    os.utime(tmp_path / 'a/1.jpg', ns=(0, 0))
    assert Files(tmp_path).fingerprint() != first


def test_each_of_many_folders_finds_its_own_at_once(tmp_path, monkeypatch):
    names = [f'{i:04}{end}/{i}.jpg' for i in range(3000) for end in ('', '-b', '0')]
    monkeypatch.setattr(Files, '_walk', lambda *_: ((name, (1, 1)) for name in names))
    found = Files(tmp_path)
    found._folders = sorted(name.partition('/')[0] for name in names)
    started = time.process_time()
    for name in found._folders:
        assert len(found.images_below(name)) == 1 and found.folders(name) == []
    assert time.process_time() - started < 2  # a look at all names takes 20 s


def test_an_image_of_another_part_is_another(tmp_path):
    """``val/5.jpg`` is missing, and the numbers begin anew in each part."""
    found = files(tmp_path, 'train/5.jpg', 'val/6.jpg', 'images/7.jpg')
    assert found.locate('val/5.jpg', 'annotations', 'val') is None and found.locate('5.jpg', 'val', 'val') is None
    assert found.locate('5.jpg', 'annotations', 'val') == 'train/5.jpg'  # as where all images lie in one folder
    assert found.locate('/home/me/val/7.jpg', '', 'val') == 'images/7.jpg'


def test_names_without_an_ending_may_have_dots(tmp_path):
    found = files(tmp_path, '1.2.840.png', '1.2.841.png', '1.2.png')
    assert found.locate('1.2.841') == '1.2.841.png' and found.locate('1.2.840.dcm') == '1.2.840.png'
