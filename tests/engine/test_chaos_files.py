"""Damaged and hostile files, a few of each kind every day, all of them in the long suite."""
import pytest
from chaos_files import CASES, run_all


def failures(what: str, count: int, folder, data, seed: int) -> list[str]:
    record, failed = run_all(CASES[what](folder, data, seed), count, workers=2)
    assert sum(number for outcomes in record.values() for number in outcomes.values()) >= count
    return failed


@pytest.mark.parametrize('what, count', [
    ('checkpoints', 30), ('images', 20), ('annotations', 19), ('yolo', 50), ('voc', 50), ('labelme', 50),
    ('cvat', 50), ('tables', 50), ('label-images', 50)])
def test_some_files(what, count, small_digits, tmp_path):
    assert not failures(what, count, tmp_path, small_digits, seed=0)


@pytest.mark.long
@pytest.mark.parametrize('what, count', [
    ('checkpoints', 2000), ('images', 1000), ('annotations', 500), ('yolo', 1000), ('voc', 1000), ('labelme', 1000),
    ('cvat', 1000), ('tables', 1000), ('label-images', 1000)])
def test_many_files(what, count, small_digits, tmp_path):
    assert not failures(what, count, tmp_path, small_digits, seed=1)
