"""The benchmark's command line: it measures each mode, checks before it times, and writes its record."""
import json
import math
import re
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, needs_compiler, run_tool

from dwnet.config_names import config_path

MODELS = ['official_tiny', 'dwnet_tiny']
SMALL = ['--size', '32', '--rounds', '2', '--device', 'cpu']


def measure(out: Path, *options) -> tuple[dict, str]:
    done = run_tool('tools/benchmark.py', *SMALL, *options, '--out', out / 'x')
    assert done.returncode == 0, done.stderr
    return json.loads((out / 'x.json').read_text()), done.stdout


@pytest.mark.long
@pytest.mark.parametrize('mode, dtypes', [
    ('inference', ['float32']), ('inference', ['float32', 'bfloat16']), ('train', ['float32'])])
def test_models(mode, dtypes, tmp_path):
    record, printed = measure(tmp_path, '--mode', mode, '--batch', 2, '--deploy', '--models', *MODELS,
                              '--dtype', *dtypes)
    rows = record['models']
    assert list(rows) == [' '.join([m, *[d] * (d != 'float32')]) for m in MODELS for d in dtypes]
    assert rows['official_tiny']['ratio'] == 1
    assert all(0 < r['low'] <= r['images_s'] <= r['high'] and r['matrix_rate'] > 0 and r['peak_mib'] > 0
               for r in rows.values())
    assert (tmp_path / 'x.png').stat().st_size > 5000
    assert '× official_tiny' in printed and 'copies' in printed and '--deploy' in record['command']


@pytest.mark.long
@needs_compiler
def test_eager_and_compiled(tmp_path):
    record, _ = measure(tmp_path, '--batch', 1, '--models', 'dwnet_tiny', 'dynamic_dwnet_tiny', '--deploy', '--compile')
    rows = record['models']
    assert list(rows) == ['dwnet_tiny', 'dwnet_tiny compiled', 'dynamic_dwnet_tiny', 'dynamic_dwnet_tiny compiled']
    assert 1 in (rows['dwnet_tiny']['ratio'], rows['dwnet_tiny compiled']['ratio'])


@pytest.mark.long
@pytest.mark.parametrize('mode', ['detection', 'segmentation'])
def test_whole_detectors_and_segmentors(mode, tmp_path):
    record, _ = measure(tmp_path, '--mode', mode, '--size', '96', '--batch', 2, '--models', 'swin_tiny', 'dwnet_tiny')
    assert set(record['models']) == {'swin_tiny', 'dwnet_tiny'}
    assert all(row['images_s'] > 0 for row in record['models'].values())


@pytest.mark.long
def test_layers(tmp_path):
    record, printed = measure(tmp_path, '--mode', 'layers', '--batch', 1)
    layers = record['layers']
    assert len(layers) == 4 * 3 * 3 * 2  # stages, operators, ways, passes
    assert all(layer['ms'] > 0 and layer['copy_rate'] > 0 for layer in layers)
    assert 'x is on the cpu' in printed


def test_kernels(tmp_path):
    record, printed = measure(tmp_path, '--mode', 'kernels')
    rows = record['kernels']
    assert len(rows) == 3 * 3 * 2  # operators, dtypes, layouts
    assert 'partial' not in record and 'WRONG' not in printed and printed.count('right, ') == len(rows)


@pytest.mark.parametrize('row, verdict', [
    (dict(dtype='float32', error=1e-6), 'right, 1e-06'), (dict(dtype='float32', error=1e-3), 'WRONG, 1e-03'),
    (dict(dtype='bfloat16', error=.01), 'right, 1e-02'), (dict(dtype='bfloat16', error=float('nan')), 'WRONG, nan'),
    (dict(dtype='float32', failure='CompilationError: line 3'), 'CompilationError: line 3')])
def test_whether_a_kernel_is_right(row, verdict):
    assert runpy.run_path('tools/benchmark.py')['verdict_of'](row) == verdict


@pytest.mark.parametrize('direction, ms, copy_rate, said', [
    ('forward', 1, .5, '50% (copies)'), ('forward', 1, .1, '49% (multiply-adds)'),
    ('backward', 1, .5, '98% (multiply-adds)')])
def test_the_nearer_ceiling_is_named(direction, ms, copy_rate, said):
    """10⁷ values of 49 multiply-adds each, at one tera multiply-adds a second in float32 and ten in bfloat16."""
    row = dict(shape=[10, 100, 100, 100], direction=direction, ms=ms, copy_rate=copy_rate)
    limits = dict(tera_macs=10, tera_macs_float32=1.)
    assert runpy.run_path('tools/benchmark.py')['ceiling'](row, limits) == said


def test_what_was_measured_before_it_was_cut_off_stays(tmp_path, monkeypatch):
    tool = runpy.run_path('tools/benchmark.py')
    own, operator_steps = tool['compare_layers'].__globals__, tool['operator_steps']

    def until_the_third(function, *rest):
        if function.__name__.startswith('inhomogeneous'):
            raise KeyboardInterrupt
        return operator_steps(function, *rest)

    monkeypatch.setitem(own, 'operator_steps', until_the_third)
    monkeypatch.setitem(own, 'take_turns', lambda steps, args: {name: [.001] for name in steps})
    monkeypatch.setitem(own, 'device_limits', lambda *_: dict(copy_gb_s=9., tera_macs=1., tera_macs_float32=1.))
    args = tool['make_parser']().parse_args(['--batch', '1', '--device', 'cpu', '--out', str(tmp_path / 'layers')])
    args.command = []
    with pytest.raises(KeyboardInterrupt):
        tool['compare_layers'](args)
    assert len(json.loads((tmp_path / 'layers.json').read_text())['layers']) == 2 * 3 * 2  # operators, ways, passes
    table = tool['tables_of'](tmp_path)
    assert 'cut off before its end' in table and table.count('(copies)') + table.count('(multiply-adds)') == 12


@pytest.mark.parametrize('limit, code', [(math.inf, 3), (60, 3), (.5, None)])
def test_a_measurement_is_ended_with_all_that_it_started(limit, code, tmp_path):
    run_for = runpy.run_path('tools/benchmark.py')['run_for']
    end = 'wait' if code is None else f'exit {code}'
    assert run_for(['bash', '-c', f'sleep 600 & echo $! > {tmp_path}/pid; {end}'], limit) == code
    stat = Path('/proc', (tmp_path / 'pid').read_text().strip(), 'stat')
    while stat.is_file() and ') Z ' not in stat.read_text():
        time.sleep(.05)


@pytest.mark.parametrize('minutes', [None, 10])
def test_order_and_time_of_a_record(minutes, tmp_path, monkeypatch):
    tool, limits, clock = runpy.run_path('tools/benchmark.py'), {}, iter(range(0, 1000, 60))
    monkeypatch.setattr(time, 'monotonic', lambda: next(clock))
    monkeypatch.setitem(tool['record_all'].__globals__, 'run_for', lambda command, limit: limits.update(
        {Path(command[-1]).name: limit}) or int('train' in command))
    options = ['--minutes', str(minutes)] if minutes else []
    args = tool['make_parser']().parse_args(['--record', str(tmp_path), '--device', 'cuda', *options])
    with pytest.raises(Exception, match='these measurements failed: train;'):  # the others go on
        tool['record_all'](args)
    assert list(limits) == ['kernels', 'layers', 'inference', 'train', 'inference-base', 'sizes', 'detection',
                            'segmentation', 'pipeline']
    if minutes:
        assert list(limits.values()) == [270, 240, 210, 180, 150, 120, 90, 60, 60]
    else:
        assert set(limits.values()) == {math.inf}


def test_nothing_begins_when_the_time_is_used_up(tmp_path, monkeypatch, capsys):
    tool, begun, clock = runpy.run_path('tools/benchmark.py'), [], iter(range(0, 10000, 300))
    monkeypatch.setattr(time, 'monotonic', lambda: next(clock))
    monkeypatch.setitem(tool['record_all'].__globals__, 'run_for', lambda command, limit: begun.append(limit) or 0)
    options = ['--record', str(tmp_path), '--device', 'cuda', '--minutes', '8']
    tool['record_all'](tool['make_parser']().parse_args(options))
    assert begun == [90] and 'pipeline: no time is left' in capsys.readouterr().out


def test_sizes(tmp_path):
    record, _ = measure(tmp_path, '--mode', 'sizes', '--sizes', '32', '64', '--batch', 1, '--models', *MODELS)
    assert {size: [*rates] for size, rates in record['sizes'].items()} == {s: ['dwnet_tiny'] for s in ('32', '64')}


@pytest.mark.long
def test_pipeline(tmp_path):
    record, _ = measure(tmp_path, '--mode', 'pipeline')
    row, = record['pipeline'].values()
    assert row['images_s'] > 0 and 0 <= row['waiting'] < 1


@pytest.mark.long
def test_a_wrong_operator_is_not_measured(monkeypatch):
    monkeypatch.setattr('dwnet.ops.torch_forms.inhomogeneous_forward', lambda x, weight: torch.zeros_like(x))
    done = run_tool('tools/benchmark.py', '--mode', 'layers', '--batch', 1, *SMALL)
    assert done.returncode == 2 and 'inhomogeneous_depthwise_conv2d by dwnet, torch is wrong' in done.stderr


def test_a_wrong_deployment_is_not_measured(monkeypatch):
    monkeypatch.setattr('dwnet.models.dwnet.fold_into_linear', lambda norm, linear: torch.nn.Identity())
    done = run_tool('tools/benchmark.py', '--deploy', '--batch', 1, *SMALL, '--models', 'dwnet_tiny')
    assert done.returncode == 2 and 'dwnet_tiny differs from dwnet_tiny in plain float32' in done.stderr


def test_an_unknown_model_is_named():
    done = run_tool('tools/benchmark.py', '--models', 'dwnet_huge')
    assert done.returncode == 2 and 'dwnet_huge: unknown; there are swin_tiny' in done.stderr


def test_the_commands_of_the_record_can_be_run():
    """Those for a GPU, too: one command fills the record where there is one."""
    tool = runpy.run_path('tools/benchmark.py')
    for device, measurements in tool['RECORDS'].items():
        for options in measurements.values():
            args = tool['make_parser']().parse_args([*options.split(), '--device', device])
            assert set(args.models or []) <= set(tool['known_models'](args.mode))


def test_it_runs_outside_the_clone(tmp_path, monkeypatch):
    """As `python -m dwnet benchmark` does it: its own file, and configs by name."""
    tool, commands = runpy.run_path('tools/benchmark.py'), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(tool['record_all'].__globals__, 'run_for', lambda command, limit: commands.append(command) or 0)
    tool['record_all'](tool['make_parser']().parse_args(
        ['--record', str(tmp_path), '--only', 'sizes', '--device', 'cpu']))
    (python, *_, file), = [command[:4] for command in commands]
    assert python == sys.executable and Path(ROOT, file) == ROOT / 'tools/benchmark.py'
    configs = [config for config, _ in tool['TASKS'].values()] + [tool['make_parser']().parse_args([]).config]
    assert all(Path(config_path(config)).is_file() for config in configs)


RECORDED = sorted({path.parent for path in Path('benchmarks').glob('*/*.json')})  # of tools/benchmark.py
assert RECORDED


@pytest.mark.parametrize('folder', RECORDED, ids=lambda path: path.name)
def test_the_tables_are_those_of_the_record(folder):
    tool = runpy.run_path('tools/benchmark.py')
    assert (folder / 'README.md').read_text() == tool['tables_of'](folder)
    for path in folder.glob('*.json'):
        command = json.loads(path.read_text())['command'].split(' --out')[0]
        assert command in {f"python tools/benchmark.py {names[path.stem]} --device {device}"
                           for device, names in tool['RECORDS'].items() if path.stem in names}


def test_the_figures_of_the_readme_are_those_of_the_record():
    rows = json.loads(Path('benchmarks/cpu/deploy.json').read_text())['deploy']
    names = {'Swin-T': 'swin_tiny', 'ConvNeXt-T': 'convnext_tiny', 'DWNet-T': 'dwnet_tiny',
             'Dynamic DWNet-T': 'dynamic_dwnet_tiny'}
    table = re.findall(r'^\| ([\w -]+) \| ([\d. /]+) \| ([\d. /]+) \| \**([\d. /]+)\** \|$',
                       Path('README.md').read_text(), re.M)
    assert [model for model, *_ in table] == list(names)
    for model, *figures in table:
        for dtype, figure in zip(('float32', 'bfloat16', 'int8'), figures, strict=True):
            fastest = [max(row['images_s'] for row in rows if (row['model'], row['dtype'], row['batch']) == (
                names[model], dtype, batch)) for batch in (1, 8)]
            assert figure == '{:.1f} / {:.1f}'.format(*fastest), (model, dtype)
