"""Configs in pure Python (``read_base``, types as classes, no default scope) work as those in text do."""
import json

import pytest
import torch
from conftest import ROOT, run_tool
from mmengine.config import Config
from mmengine.registry import DefaultScope

from dwnet.apis import init_model, swap_backbone
from dwnet.toolboxes import main_score, toolbox_of

TASKS = {'classification': ('mmpretrain', 'accuracy/top1', 'classification/test/3', 'classes'),
         'detection': ('mmdet', 'coco/bbox_mAP', 'scenes/test/00000.jpg', 'objects'),
         'segmentation': ('mmseg', 'mIoU', 'scenes/test/00000.jpg', 'shares')}


@pytest.fixture
def folder(small_digits, tmp_path, monkeypatch):
    """A folder with the digits and nothing else, and no scope that an earlier test has left."""
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/digits').symlink_to(small_digits)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DefaultScope, '_instance_dict', type(DefaultScope._instance_dict)())
    return tmp_path


@pytest.mark.parametrize('task', [
    task if task == 'classification' else pytest.param(task, marks=pytest.mark.long) for task in TASKS])
def test_all_tools_take_it(task, folder):
    toolbox, metric, images, predicted = TASKS[task]
    config = ROOT / f'tests/pure_python/{task}.py'

    def run(tool: str, *arguments) -> str:
        done = run_tool(str(ROOT / f'tools/{tool}.py'), *arguments)
        assert not done.returncode, done.stderr[-3000:]
        return done.stdout

    cfg = Config.fromfile(config)
    assert (toolbox_of(cfg).name, main_score(cfg)) == (toolbox, metric) and cfg.default_scope is None
    assert 'stage 4' in run('get_flops', config)
    run('train', config, '--bf16', '--layer-decay', '.8', '--ema', '--early-stopping', '2', '--freeze', '0',
        '--load-from', self_made_weights(cfg, folder), '--channels-last', '--epochs', '1')
    written = folder / f'work_dirs/{task}/{task}.py'  # its types are paths of classes
    for text in (config, written):
        run('test', text, f'work_dirs/{task}/epoch_1.pth', '--work-dir', 'tested', '--deploy', '--out',
            'labels' if toolbox == 'mmseg' else 'out.pkl')
        assert 0 <= json.loads((folder / 'tested/scores.json').read_text())[metric] <= 100
    run('test', config, f'work_dirs/{task}/epoch_1.pth', '--work-dir', 'tta', '--tta')
    run('infer', f'data/digits/{images}', '--config', config, '--checkpoint', f'work_dirs/{task}/epoch_1.pth', '--out',
        'predictions')
    assert predicted in json.loads((folder / 'predictions/predictions.json').read_text())['predictions'][0]
    run('browse_dataset', config, '--number', '2')
    run('plot_lr', config)
    run('analyze', config, f'work_dirs/{task}/epoch_1.pth', '--number', '2')


def self_made_weights(cfg: Config, folder) -> str:
    torch.save(dict(state_dict=init_model(cfg).state_dict()), folder / 'start.pth')
    return str(folder / 'start.pth')


@pytest.mark.parametrize('task', TASKS)
def test_the_backbone_is_swapped(task):
    cfg = swap_backbone(Config.fromfile(ROOT / f'tests/pure_python/{task}.py'), arch=dict(
        embed_dims=32, depths=(1, 1, 1, 1)))
    assert cfg.model.backbone.type == 'dwnet.DWNet'
    x = torch.rand(1, 3, 64, 64)
    assert init_model(cfg).extract_feat(x)[-1].shape[0] == 1
