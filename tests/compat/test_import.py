"""What ``import dwnet`` loads, and what the library calls print: each in a fresh process."""
import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest
from conftest import ROOT, run_command, run_python

from dwnet.compat.around_import import after_import
from dwnet.errors import UserError

NAMES = {f'{kind}dwnet_{size}' for kind in ('', 'dynamic_', 'i_dynamic_', 'local_mlp_') for size in ('tiny', 'base')}


def test_importing_loads_what_is_slow_only_when_it_is_used():
    slow = ['torchvision', 'timm', 'mmpretrain', 'mmdet', 'mmseg', 'torch._dynamo', 'sklearn', 'pycocotools']
    code = f'''import torch, mmengine.runner, sys
before = set(sys.modules)  # mmengine loads the compiler of PyTorch 2.6
import dwnet
print([name for name in {slow} if name in sys.modules and name not in before])
'''
    assert run_python('-c', code).stdout.strip() == '[]'


@pytest.mark.parametrize('code, extra', [
    ('from dwnet.inspect import precision_recall; precision_recall.metrics()', 'vis'),
    ('from dwnet.deploy import trial_images; trial_images.photographs(None, None)', 'export'),
    ('from dwnet.demo.digits import prepare; prepare("made")', 'demo')])
def test_a_missing_scikit_learn_is_named(code, extra, monkeypatch, tmp_path):
    for module in ('sklearn', 'sklearn.datasets', 'sklearn.metrics'):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=fr"needs scikit-learn, which is missing: pip install 'dwnet\[{extra}\]'"):
        exec(code)
    assert not Path('made').exists()


@pytest.mark.parametrize('code', [
    'import dwnet, timm; print(*timm.list_models("*dwnet*"))',
    'import timm, dwnet; print(*timm.list_models("*dwnet*"))',
    'import importlib.util, dwnet; importlib.util.find_spec("timm.models"); import timm; '
    'print(*timm.list_models("*dwnet*"))',
    'import dwnet.toolboxes.timm, timm; print(*timm.list_models("*dwnet*"))',
    'import dwnet; from timm.models import create_model, list_models; create_model("dwnet_tiny"); '
    'print(*list_models("*dwnet*"))',
    'from mmengine.registry import MODELS; MODELS.get("dwnet.DWNet"); import timm; print(*timm.list_models("*dwnet*"))',
])
def test_timm_knows_the_models_in_any_order_of_imports(code):
    done = run_python('-c', code)
    assert set(done.stdout.split()) == NAMES and not done.stderr


@pytest.mark.parametrize('loaded', [False, True])
def test_after_import_acts_once(loaded, monkeypatch, tmp_path):
    """After the module's own code, whatever other finders there are; at once if the module is imported already."""
    acted = []
    (tmp_path / 'late.py').write_text('name = "late"')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'meta_path', [object(), *sys.meta_path])  # an old finder, which has no find_spec
    monkeypatch.delitem(sys.modules, 'late', raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, 'late', types.ModuleType('late'))
    after_import('late', lambda: acted.append(getattr(sys.modules['late'], 'name', None)))
    finder = sys.meta_path[0]
    if not loaded:
        assert not acted
        sys.modules['late'] = module = importlib.util.module_from_spec(spec := finder.find_spec('late'))
        spec.loader.exec_module(module)
        spec.loader.exec_module(module)
    assert acted == [None if loaded else 'late']


def test_timm_stays_usable_where_the_models_do_not_fit_it(tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(
        "import sys, types\nsys.modules['dwnet.toolboxes.timm'] = None  # its import fails\n")
    done = run_command(sys.executable, '-c', 'import dwnet, timm; print(*timm.list_models("*dwnet*")); '
                       'print(timm.is_model("resnet18"))', PYTHONPATH=f'{tmp_path}:{ROOT}')
    assert done.stdout.split() == ['True'] and "dwnet's models are not in timm: ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize('config', [
    pytest.param('classification/dwnet-tiny_in1k', marks=pytest.mark.long),
    'detection/cascade-mask-rcnn_dwnet-nano_fpn_digits',
    pytest.param('segmentation/upernet_dwnet-nano_digits', marks=pytest.mark.long)])
def test_building_a_model_prints_a_few_lines_at_most(config):
    code = f"from dwnet.apis import init_model; init_model('dwnet::{config}.py')"
    done = run_command(sys.executable, '-c', code, PYTHONWARNINGS='')
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) <= 3, lines[:20]


# --- python -m dwnet where a package is broken ---------------------------------------------------------
BROKEN = """
import sys
class Break:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == {package!r}:
            raise RuntimeError('operator torchvision::nms does not exist')
sys.meta_path.insert(0, Break())
"""


@pytest.mark.parametrize('package, command', [
    ('mmcv', 'train'), ('mmcv', 'hook'), ('mmengine', 'get_flops'), ('torch', 'test'),
    ('torchvision', 'export'), ('torchvision', 'train')])
def test_a_broken_package_ends_a_command_in_a_line(package, command, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(BROKEN.format(package=package))
    config = 'dwnet::detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'
    arguments = {'train': [config], 'test': [config, 'x.pth'], 'get_flops': [config], 'export': [config]}
    done = run_command(sys.executable, '-W', 'ignore', '-m', 'dwnet', command, *arguments.get(command, ()), check=False,
                       PYTHONPATH=f'{tmp_path}:{ROOT}')
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr[-2000:]
    assert done.stderr.startswith('error: ') and 'torchvision::nms does not exist' in done.stderr
    assert '`python -m dwnet doctor`' in done.stderr


def test_another_program_is_told_that_dwnet_is_broken(tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(BROKEN.format(package='mmcv'))
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/__init__.py').write_text('import dwnet\n')
    (tmp_path / 'other/__main__.py').write_text('print("ran")\n')
    done = run_command(sys.executable, '-m', 'other', check=False,
                       PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode and 'dwnet cannot be imported' in done.stderr and not done.stdout
