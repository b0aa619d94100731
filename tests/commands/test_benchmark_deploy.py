"""The comparison of runtimes: its ratios, its tables, and one whole small run."""
import argparse
import json
import runpy

import pytest
from conftest import ROOT, run_tool


@pytest.fixture(scope='module')
def script() -> dict:
    return runpy.run_path(str(ROOT / 'benchmarks/deploy.py'))


@pytest.fixture
def rows(script) -> list[dict]:
    """Two models in two runtimes; a run of 2048 rows of the product takes a second, 2048² × 2048 multiply-adds."""
    contestant = script['Contestant']
    contestants = [
        contestant('swin_tiny', 'torch', 'float32', times={1: [.2, .4], 8: [1., 2.]}),
        contestant('swin_tiny', 'openvino', 'float32', times={1: [.1, .2], 8: [.8, 1.6]}),
        contestant('dwnet_tiny', 'openvino', 'float32', times={1: [.05, .1], 8: [.4, .8]}),
        contestant('dwnet_tiny', 'openvino', 'int8', times={1: [.025, .05], 8: [.1, .2]}),
        contestant('dynamic_dwnet_tiny', 'openvino', 'float32', times={1: [.1, .2], 8: [.5, 1.]}),
        contestant('matrix product', 'torch', 'float32', times={2048: [1., 1.]}),
        contestant('matrix product', 'openvino', 'float32', times={2048: [.5, .5]})]
    operations = dict.fromkeys(('swin_tiny', 'dwnet_tiny', 'dynamic_dwnet_tiny'), 2048**3 / 10)
    return script['_rows'](contestants, {**operations, 'matrix product': 2048**2}, argparse.Namespace())['deploy']


@pytest.mark.parametrize('model, dtype, batch, key, value', [
    ('dwnet_tiny', 'float32', 8, 'images_s', 15), ('dwnet_tiny', 'float32', 8, 'swin', 2),  # the faster Swin-T
    ('dwnet_tiny', 'int8', 1, 'own_float32', 2), ('dwnet_tiny', 'int8', 8, 'own_float32', 4),
    ('dwnet_tiny', 'int8', 8, 'swin', None), ('dwnet_tiny', 'int8', 8, 'matrix_rate', None),
    ('dynamic_dwnet_tiny', 'float32', 8, 'static', .8), ('dwnet_tiny', 'float32', 8, 'static', None),
    ('dwnet_tiny', 'float32', 8, 'matrix_rate', .75)])  # 1.5 × 2048³ of 2 × 2048³ a second
def test_ratios_are_within_a_round_and_to_the_best(model, dtype, batch, key, value, rows):
    row, = [r for r in rows if (r['model'], r['dtype'], r['batch']) == (model, dtype, batch)]
    assert row[key] == (value if value is None else pytest.approx(value))


def test_the_tables_of_the_record(script, rows, tmp_path):
    record = dict(command='python tools/benchmark.py', date='', device='a CPU', torch='', timm='', threads=2,
                  deploy=rows)
    (tmp_path / 'deploy.json').write_text(json.dumps(record))
    table = runpy.run_path(str(ROOT / 'tools/benchmark.py'))['tables_of'](tmp_path)
    assert '| swin_tiny | float32 | 7.5 | openvino | 7.5 | openvino | 1.00 | 38% |' in table
    assert table.count('| dwnet_tiny |') == 2 + 4


@pytest.mark.long
def test_a_small_run(tmp_path):
    done = run_tool('tools/benchmark.py', '--mode', 'deploy', '--models', 'dwnet_tiny', 'dynamic_dwnet_tiny', '--size',
                    32, '--rounds', 1, '--dtype', 'float32', 'bfloat16', 'int8', '--device', 'cpu',
                    '--out', tmp_path / 'x')
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'x.json').read_text())['deploy']
    assert len(rows) == 2 * 2 * 7  # models, batches, runtimes and their precisions
    assert all(row['images_s'] > 0 and row['start_s'] > 0 and row['peak_mib'] > 50 for row in rows)
