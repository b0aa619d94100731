"""A small form of the chaos test."""
import json

import pytest
from conftest import run_python


@pytest.mark.long
@pytest.mark.parametrize('part', ['kills', 'two_processes', 'preemption', 'full_disk', 'poisoned_batch'])
def test_chaos(part, tmp_path):
    run_python('tests/chaos.py', '--only', part, '--kills', 8, '--out', tmp_path)
    record = json.loads((tmp_path / f'record_{part}.json').read_text())
    assert record['passed'] and (tmp_path / 'report.md').read_text().count('| yes |') == 1
