"""The hook, in a virtual environment of its own: site-packages is where Python looks for it."""
import subprocess
import sys
import sysconfig

import pytest
from conftest import ROOT, run_command

CONFIG = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(_delete_=True, type='dwnet.DWNet', arch=dict(embed_dims=32, depths=(1, 1, 2, 1))),
    neck=dict(in_channels=[32, 64, 128, 256], start_level=0),
    bbox_head=dict(num_classes=10))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=True), dict(type='PackDetInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root={root!r}, ann_file='annotations/train.json', data_prefix=dict(img='scenes/train/'),
                 metainfo=dict(classes=tuple('0123456789')), indices=4, pipeline=pipeline))
train_cfg = dict(max_epochs=1)
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    """A new environment's interpreter, with the packages of this one."""
    folder = tmp_path_factory.mktemp('environment')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    site, = folder.glob('lib/*/site-packages')
    (site / 'packages.pth').write_text(sysconfig.get_path('purelib'))
    return folder / 'bin/python'


def test_every_process_has_the_operators(python):
    find = "import sys; print('dwnet' in sys.modules, 'torch' in sys.modules); import mmcv._ext; print(mmcv._ext)"
    assert "No module named 'mmcv._ext'" in run_command(python, '-c', find, check=False).stderr
    assert run_command(python, '-W', 'ignore', '-m', 'dwnet', 'hook', 'on').stdout.startswith('on: ')
    found = run_command(python, '-W', 'ignore', '-c', find).stdout
    assert found.startswith('False False') and str(ROOT / 'dwnet') in found
    old = ("import pkgutil, sys; sys.modules.pop('pkg_resources', None); assert pkgutil.find_loader('mmcv._ext'); "
           "from importlib.machinery import PathFinder; PathFinder.find_spec = classmethod("
           "lambda cls, name, *a, find=PathFinder.find_spec: None if name == 'pkg_resources' else find(name, *a)); "
           "import pkg_resources; print('dwnet' in sys.modules, pkg_resources.__file__)")
    assert run_command(python, '-W', 'ignore', '-c', old).stdout.split() == [
        'False', str(ROOT / 'dwnet/compat/pkg_resources.py')]
    # without dwnet (-I: nothing but site-packages) Python starts, and says what it says without the hook
    gone = run_command(python, '-I', '-c', find, check=False)
    assert gone.stdout.startswith('False False') and "No module named 'mmcv._ext'" in gone.stderr
    assert 'pth' not in gone.stderr
    # a compiled mmcv wins
    (python.parent / 'mmcv').mkdir()
    for name in ('__init__', '_ext'):
        (python.parent / f'mmcv/{name}.py').touch()
    assert str(python.parent) in run_command(python, '-c', find, PYTHONPATH=f'{python.parent}:{ROOT}').stdout


def test_a_place_that_cannot_be_written_to(monkeypatch, tmp_path, capsys):
    from dwnet import commands
    from dwnet.compat.mmcv_ops import hook
    from dwnet.errors import UserError
    monkeypatch.setattr(hook, 'place', lambda: tmp_path / 'missing/x.pth')
    with pytest.raises(UserError, match='cannot be written'):
        hook.turn_on()
    monkeypatch.setattr('sys.argv', ['python -m dwnet hook', 'on'])
    with pytest.raises(SystemExit) as ended:
        commands.start('hook')
    assert ended.value.code == 2 and 'cannot be written' in capsys.readouterr().err


def test_doctor_tells(monkeypatch, tmp_path):
    from dwnet.commands import doctor
    from dwnet.compat.mmcv_ops import hook
    monkeypatch.setattr(hook, 'place', lambda: tmp_path / 'x.pth')
    monkeypatch.setattr('dwnet.toolboxes.TOOLBOXES', {})

    def finding():
        return next(f for f in doctor.examine() if f.subject == 'start-up hook')

    assert finding().state.startswith('off') and not finding().remedy
    hook.turn_on()
    assert finding().state.startswith('on') and not finding().remedy
    hook.place().write_text('import sys')
    assert 'hook on' in finding().remedy
    hook.turn_off(), hook.turn_off()
    assert finding().state.startswith('off')


@pytest.mark.long
def test_the_stock_training_tool_of_mmdet(python, small_digits, tmp_path):
    """As it comes in mmdet's wheel, with nothing but the backbone's name in the config."""
    import mmdet
    (tmp_path / 'retinanet.py').write_text(CONFIG.format(root=f'{small_digits}/'))
    tool = next(iter(mmdet.__path__)) + '/.mim/tools/train.py'
    command = (python, '-W', 'ignore', tool, tmp_path / 'retinanet.py', '--work-dir', tmp_path / 'work')
    run_command(python, '-W', 'ignore', '-m', 'dwnet', 'hook', 'on')
    run_command(*command)
    assert (tmp_path / 'work/epoch_1.pth').is_file()
    done = run_command(*command, '--resume', '--cfg-options', 'train_cfg.max_epochs=2')  # from what mmengine wrote
    assert 'resumed epoch: 1' in done.stdout + done.stderr and (tmp_path / 'work/epoch_2.pth').is_file()
