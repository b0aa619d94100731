"""Which files below a root are COCO's."""
import json
from pathlib import Path

import pytest

from dwnet.data.coco import read
from dwnet.data.files import Files


def coco_file(path: Path, number: int = 1, order: str = 'images annotations categories') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(images=[dict(id=i, file_name=f'{i}.jpg', width=64, height=64) for i in range(1, number + 1)],
                   annotations=[dict(id=i, image_id=i, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
                                for i in range(1, number + 1)],
                   categories=[dict(id=1, name='cat')])
    path.write_text(json.dumps({key: content[key] for key in order.split()}))


@pytest.mark.parametrize('order', ['annotations categories images', 'categories annotations images',
                                   'annotations images categories'])
def test_large_files_with_their_keys_in_any_order(order, tmp_path):
    """As tools write them that sort the keys; "images" is far from both ends."""
    number = 20_000
    coco_file(tmp_path / 'all.json', number, order)
    assert (tmp_path / 'all.json').stat().st_size > 3 * 2**20
    for i in range(1, number + 1):
        (tmp_path / f'{i}.jpg').touch()
    assert len(read(Files(tmp_path), tmp_path / 'out').parts['all']) == number


def test_files_that_are_passed_over_are_told(tmp_path):
    coco_file(tmp_path / 'annotations/instances_train.json')
    coco_file(tmp_path / 'annotations/val.json')
    (tmp_path / '1.jpg').touch()
    files = Files(tmp_path)
    assert [*read(files, tmp_path / 'out').parts] == ['train']
    assert files.notes == ['annotations/val.json are passed over, since the names of other COCO files have the word '
                           'instances']
