"""The wheel and the sdist: what is in them, and that they work outside the repository."""
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import matrix
import pytest
from conftest import ROOT, run_command, run_python, run_tool
from mmengine.config import Config
from mmengine.hub import get_config, get_model
from mmengine.registry import HOOKS, METRICS, TRANSFORMS, init_default_scope
from pages import blocks_of

from dwnet import DWNet
from dwnet.config_names import MIM, config_path
from dwnet.errors import UserError

NANO = {'mmpretrain': 'classification/dwnet-nano_digits', 'mmdet': 'detection/cascade-mask-rcnn_dwnet-nano_fpn_digits',
        'mmseg': 'segmentation/upernet_dwnet-nano_digits'}


# --- Names of configs ----------------------------------------------------------------------------------
def test_names_lead_to_files():
    path = Path(config_path('dwnet::classification/dwnet-tiny_in1k.py'))
    assert path == MIM / 'configs/classification/dwnet-tiny_in1k.py' and path.resolve().is_relative_to(ROOT)
    assert config_path('configs/x.py') == 'configs/x.py'
    assert Path(config_path('dwnet::_base_/datasets/imagenet.py')).is_file()
    with pytest.raises(UserError, match='names no config.*dwnet-tiny_in1k.py'):
        config_path('dwnet::classification/dwnet-tinny_in1k.py')


@pytest.mark.long
@pytest.mark.parametrize('toolbox', NANO)
def test_mmengines_hub(toolbox):
    name = f'dwnet::{NANO[toolbox]}.py'
    assert get_config(name).pretty_text == Config.fromfile(f'configs/{NANO[toolbox]}.py').pretty_text
    model = get_model(name)
    assert type(model).__module__.startswith(f'{toolbox}.') and isinstance(model.backbone, DWNet)


@pytest.mark.parametrize('toolbox', NANO)
def test_parts_of_a_base_are_the_toolboxes(toolbox, tmp_path, small_digits):
    """What a config reads from a ``dwnet::`` base is built in that scope, and must not become another class."""
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = 'dwnet::{NANO[toolbox]}.py'\n"
                    "test_evaluator = _base_.val_evaluator\npipeline = _base_.train_dataloader.dataset.pipeline\n"
                    "model = _base_.model\n")
    cfg = Config.fromfile(mine)
    init_default_scope(toolbox)
    if toolbox == 'mmdet':
        cfg.test_evaluator.ann_file = str(small_digits / 'annotations/test.json')
    for registry, parts in ((METRICS, cfg.test_evaluator), (TRANSFORMS, cfg.pipeline)):
        for part in parts if isinstance(parts, list) else [parts]:
            scope = dict(part, _scope_='dwnet')
            plain = {k: v for k, v in part.items() if k != '_scope_'}
            assert type(registry.build(scope)) is type(registry.build(plain))
    assert type(HOOKS.build(dict(type='LoggerHook', _scope_='dwnet'))).__module__ == 'mmengine.hooks.logger_hook'


@pytest.mark.long
def test_a_config_by_name_in_the_tools():
    shown = run_python('-m', 'dwnet', 'get_flops', f"dwnet::{NANO['mmpretrain']}.py").stdout
    plain = run_tool('tools/get_flops.py', f"configs/{NANO['mmpretrain']}.py").stdout
    assert 'stage 4' in shown and set(re.findall(r'[\d,.]{5,}', plain)) <= set(re.findall(r'[\d,.]{5,}', shown))
    done = run_tool('tools/get_flops.py', 'dwnet::no/such.py')
    assert done.returncode == 2 and done.stderr.startswith('error: dwnet::no/such.py names no config')


# --- Versions ------------------------------------------------------------------------------------------
@pytest.mark.long
@pytest.mark.parametrize('python', [f'3.{minor}' for minor in range(10, 15)])
def test_constraints_fit_each_python(python):
    """By uv's resolver: pip's goes by the markers of the Python that it runs on, and downloads what it looks at."""
    pytest.importorskip('uv', reason='waits for uv, which the extra dev brings')
    done = run_python('-m', 'uv', 'pip', 'compile', '--quiet', '--python-version', python, '--extra', 'dev', '--extra',
                      'docs', '--constraints', 'constraints.txt', 'setup.py', check=False)
    if done.returncode and 'No solution found' not in done.stderr:
        pytest.skip(f'waits for a package index: {done.stderr.strip().splitlines()[-1:]}')
    assert done.returncode == 0, done.stderr
    assert 'torch==' in done.stdout and 'sphinx==' in done.stdout


def test_the_page_of_versions_is_that_of_their_file():
    assert matrix.PAGE.read_text() == matrix.page(matrix.read_results()), 'python3 tests/matrix.py --write'


def test_outcomes_of_the_matrix():
    counts = dict(passed=9, skipped=1, failed=0, failures=[])
    assert matrix.outcome(None) == 'not run yet' and matrix.outcome(dict(reason='no Python')) == 'not run: no Python'
    assert matrix.outcome(counts) == '9 passed, 1 skipped'
    assert matrix.outcome(counts | dict(failed=1, failures=['test_a::b'])).endswith('**1 failed**: test_a::b')
    with pytest.raises(matrix.Unavailable, match='no Python 2.0 .* PYTHON_2_0='):
        matrix.interpreter('2.0')


# --- The archives --------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def archives(tmp_path_factory) -> Path:
    """The folder of the sdist and of the wheel that is built from it."""
    out = tmp_path_factory.mktemp('dist')
    clone = out / 'clone'
    files = run_command('git', 'ls-files', '--cached', '--others', '--exclude-standard').stdout.splitlines()
    for name in files:
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, clone], check=True,
                   capture_output=True)
    return out


def tracked(folder: str) -> set[str]:
    return {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob('*')
            if p.is_file() and '__pycache__' not in p.parts}


@pytest.mark.long
def test_archives_carry_configs_tools_and_index(archives):
    wheel = set(zipfile.ZipFile(next(archives.glob('*.whl'))).namelist())
    expected = tracked('configs') | tracked('tools') | {'model-index.yml'}
    assert {name.removeprefix('dwnet/.mim/') for name in wheel if '.mim/' in name} == expected
    assert {name for name in wheel if name.endswith('.py') and '.mim' not in name} == {
        name for name in tracked('dwnet') if name.endswith('.py') and '.mim' not in name}
    with tarfile.open(next(archives.glob('*.tar.gz'))) as file:
        sdist = {name.partition('/')[2] for name in file.getnames()}
    assert sdist >= expected | tracked('tests') | {'Makefile', 'constraints.txt', 'CITATION.cff', 'docs/conf.py'}


@pytest.mark.long
def test_wheel_runs_the_readmes_examples_elsewhere(archives, tmp_path, small_digits):
    """As printed there, in a folder that is no clone, by a Python that has the dependencies and this wheel."""
    venv, elsewhere = tmp_path / 'venv', tmp_path / 'elsewhere'
    run_command(sys.executable, '-m', 'venv', venv)
    python = venv / 'bin/python'
    site = Path(run_command(python, '-c', "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    run_command(python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index', next(archives.glob('*.whl')),
                PYTHONPATH='')
    (site / 'dependencies.pth').write_text(sysconfig.get_path('purelib'))  # not those that are editable
    (elsewhere / 'data').mkdir(parents=True)
    (elsewhere / 'data/digits').symlink_to(small_digits)
    run_python('tests/example_files.py', elsewhere / 'upernet_dwnet_tiny.pth')

    def run(*arguments) -> str:
        done = subprocess.run([python, '-W', 'ignore', *arguments], cwd=elsewhere, text=True, capture_output=True,
                              env={'PATH': f'{venv}/bin:/usr/bin:/bin', 'HOME': str(tmp_path)})
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert run('-c', 'import dwnet; print(dwnet.__file__)').startswith(str(site))
    installed = run('-c', "from mmengine.utils import get_installed_path; print(get_installed_path('dwnet'))")
    assert installed.strip() == str(site / 'dwnet')
    examples = [b.code for b in blocks_of((ROOT / 'README.md').read_text()) if b.language == 'python']
    assert len(examples) >= 3
    for code in examples:
        run('-c', code)
    (elsewhere / 'mine.py').write_text(f"_base_ = 'dwnet::{NANO['mmpretrain']}.py'\ntrain_cfg = dict(max_epochs=1)\n"
                                       'train_dataloader = dict(dataset=dict(indices=64))\n')
    run('-m', 'dwnet', 'train', 'mine.py')
    assert 'accuracy/top1' in run('-m', 'dwnet', 'test', 'mine.py', 'work_dirs/mine/epoch_1.pth')
