"""Files that are missing, empty or damaged are found by their headers and ends; whole ones are remembered."""
import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dwnet.data.examiner import EMPTY, MISSING, Examiner

RANDOM = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)


def encode(kind: str, side: int, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RANDOM[:side, :side]).save(buffer, kind, **options)
    return buffer.getvalue()


SMALL = {'a.jpg': encode('JPEG', 40), 'a.png': encode('PNG', 40), 'a.webp': encode('WEBP', 40)}
LARGE = {'b.jpg': encode('JPEG', 400, quality=95), 'b.png': encode('PNG', 400)}


def read(file: str) -> None:
    with Image.open(file) as image:
        image.load()


@pytest.fixture
def reads() -> list[str]:
    """The files that have been decoded."""
    return []


@pytest.fixture
def examine(tmp_path, reads):
    """Examines the files of a folder, each time with what was remembered."""

    def examine(sample=(), reader=read) -> dict[str, str]:
        examiner = Examiner(tmp_path / 'memory.npy')
        files = sorted(map(str, (tmp_path / 'images').iterdir()))
        found = examiner.faults(files, 'images', reader and (lambda file: (reads.append(Path(file).name), read(file))),
                                [str(tmp_path / 'images' / name) for name in sample])
        examiner.save()
        return {Path(file).name: fault for file, fault in found.items()}

    (tmp_path / 'images').mkdir()
    for name, content in {**SMALL, **LARGE}.items():
        (tmp_path / 'images' / name).write_bytes(content)
    return examine


def test_the_samples_are_what_they_are_meant_to_be():
    assert all(len(content) > 2 * 2**16 for content in LARGE.values()) and max(map(len, SMALL.values())) < 2**16


def test_whole_files_are_looked_at_once(examine, reads, tmp_path, monkeypatch):
    assert examine() == {} and reads == ['a.webp'], 'other formats have to be decoded'
    monkeypatch.setattr('dwnet.data.examiner._check', lambda *_: pytest.fail('it is known'))
    assert examine() == {}
    (tmp_path / 'memory.npy').write_bytes(b'damaged')
    monkeypatch.undo()
    assert examine() == {} and reads == ['a.webp'] * 2


def test_a_sample_is_decoded_once(examine, reads):
    assert examine() == {} and examine(['b.png', 'a.jpg']) == {} and sorted(reads) == ['a.jpg', 'a.webp', 'b.png']
    assert examine(['b.png', 'a.jpg']) == {} and len(reads) == 3


@pytest.mark.parametrize('name', [*SMALL, *LARGE])
@pytest.mark.parametrize('kept', [.01, .3, .9, .9999])
def test_truncated_files_are_found_also_behind_the_memory(name, kept, examine, tmp_path):
    assert examine() == {}
    file = tmp_path / 'images' / name
    file.write_bytes(file.read_bytes()[:int(kept * file.stat().st_size)])
    assert list(examine()) == [name] == list(examine())


def test_a_change_of_the_same_size_is_seen(examine, tmp_path):
    assert examine() == {}
    file = tmp_path / 'images/b.png'
    file.write_bytes(b'\0' * len(LARGE['b.png']))
    os.utime(file, ns=(time.time_ns(), time.time_ns() + 1))
    assert list(examine()) == ['b.png']


@pytest.mark.parametrize('kind', LARGE)
def test_what_follows_the_end_does_no_harm(kind, examine, tmp_path):
    """Cameras and editors append previews; where the end is not at the end, the whole file is read."""
    with open(tmp_path / 'images' / kind, 'ab') as file:
        file.write(b'appended' * 10_000)
    assert examine() == {}


def test_other_faults(examine, tmp_path):
    images = tmp_path / 'images'
    (images / 'empty.jpg').write_bytes(b'')
    (images / 'link.jpg').symlink_to('nowhere')
    (images / 'folder.jpg').mkdir()
    (images / 'text.png').write_text('404 not found')
    os.mkfifo(images / 'pipe.jpg')
    found = examine()
    assert found.pop('text.png').startswith('cannot identify') and found == {
        'empty.jpg': EMPTY, 'link.jpg': MISSING, 'folder.jpg': 'it is no file', 'pipe.jpg': 'it is no file'}
    assert set(examine(reader=None)) == {'empty.jpg', 'link.jpg', 'folder.jpg', 'pipe.jpg'}


def test_a_memory_that_cannot_be_written_costs_only_the_memory(tmp_path):
    examiner = Examiner(tmp_path / 'no folder/memory.npy')
    assert examiner.faults([], 'images', read) == {}
    examiner.save()
    assert not list(tmp_path.iterdir())
