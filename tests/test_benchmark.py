"""The benchmark's command line: it measures each mode, checks before it times, and writes its record."""
import json

import pytest
import torch
from conftest import run_tool

MODELS = ['official_tiny', 'dwnet_tiny']
SMALL = ['--batch', '1', '--size', '32', '--rounds', '1', '--device', 'cpu', '--models', *MODELS]


@pytest.mark.parametrize('mode', ['inference', pytest.param('train', marks=pytest.mark.long)])
def test_models(mode, tmp_path):
    done = run_tool('tools/benchmark.py', '--mode', mode, *SMALL[2:], '--batch', '2', '--deploy', '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / 'results.json').read_text())
    assert list(record['models']) == MODELS and record['models']['official_tiny']['ratio'] == 1
    assert all(0 < r['low'] <= r['images_s'] <= r['high'] for r in record['models'].values())
    assert (tmp_path / 'throughput.png').stat().st_size > 5000
    assert '× official_tiny' in done.stdout and 'copies' in done.stdout


def test_sizes(tmp_path):
    run_tool('tools/benchmark.py', '--mode', 'sizes', '--sizes', '32', '64', *SMALL, '--out', tmp_path)
    assert set(json.loads((tmp_path / 'results.json').read_text())['sizes']) == {'32', '64'}


def test_a_wrong_operator_is_not_measured(monkeypatch):
    monkeypatch.setattr('dwnet.ops.torch_forms.inhomogeneous_forward', lambda x, weight: torch.zeros_like(x))
    done = run_tool('tools/benchmark.py', '--mode', 'layers', *SMALL)
    assert done.returncode == 2 and 'inhomogeneous by torch is wrong' in done.stderr


def test_a_wrong_deployment_is_not_measured(monkeypatch):
    monkeypatch.setattr('dwnet.models.dwnet.fold_into_linear', lambda norm, linear: torch.nn.Identity())
    done = run_tool('tools/benchmark.py', '--deploy', *SMALL)
    assert done.returncode == 2 and 'dwnet_tiny deployed differs' in done.stderr
