"""The Runner's own parts, and the report's."""
import copy
import json
import logging
import os
import signal
import socket
import sysconfig
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn
from torch.utils.data import Dataset

from dwnet.apis import init_model
from dwnet.checkpoint import read_checkpoint
from dwnet.commands.doctor import Finding, _version_remedy, examine
from dwnet.engine import Runner
from dwnet.engine.distributed.process_group import set_environment
from dwnet.engine.hooks.progress import ProgressHook
from dwnet.engine.scores import report_scores
from dwnet.errors import UserError
from dwnet.inspect.curves import read_curve
from dwnet.inspect.report import report_training
from dwnet.toolboxes.base import with_metric
from dwnet.toolboxes.mmdet.coco import CheckedCocoMetric

CLASSIFICATION = 'configs/classification/dwnet-nano_digits.py'


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        y = self.layer(torch.stack(list(x)) if isinstance(x, (list, tuple)) else x)
        return dict(loss=y.square().mean()) if mode == 'loss' else [y]


MODELS.register_module('NamedToy', module=Toy)


@DATASETS.register_module()
class ToyData(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict:
        if index >= 6:
            raise IndexError(index)
        return dict(x=torch.ones(2) * index)


def toy_loader() -> dict:
    return dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='ToyData'),
                num_workers=0)


def toy_runner(tmp_path, model=None, **options) -> Runner:
    options = {'optim_wrapper': dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=.01)), **options}
    return Runner(model=model or Toy(), work_dir=str(tmp_path), train_dataloader=toy_loader(), **options,
                  train_cfg=dict(by_epoch=True, max_epochs=2), experiment_name=uuid4().hex)


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def test_two_runs_of_a_process_log_to_their_own_folders(tmp_path):
    visualizer = dict(type='Visualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')])  # as mmseg's
    for name in ('first', 'second'):
        toy_runner(tmp_path / name, visualizer=visualizer).train()
    assert [read_curve(tmp_path / name, 'loss')[0] for name in ('first', 'second')] == [[3, 6]] * 2
    assert visualizer['name'] == 'visualizer'


def test_nobody_complains_of_a_missing_compiler(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sysconfig.get_config_vars(), 'CC', 'no-such-gcc -pthread')
    toy_runner(tmp_path)
    assert 'no-such-gcc' not in ''.join(capfd.readouterr())


@pytest.mark.parametrize('launched', [False, True])
def test_a_training_leaves_its_config_as_it_was(tmp_path, launched, monkeypatch):
    """Settings that the Runner carries out itself stay in the written config and in checkpoints."""
    if launched:
        monkeypatch.setattr(os, 'environ', {**os.environ, **dict(
            RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))})
    own = dict(activation_checkpointing=['layer'], sync_bn='torch', channels_last=True)
    cfg = Config(dict(
        **own, model=dict(type='NamedToy'), work_dir=str(tmp_path), launcher='pytorch' if launched else 'none',
        train_dataloader=toy_loader(), train_cfg=dict(by_epoch=True, max_epochs=2), experiment_name=uuid4().hex,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.01))))
    before = copy.deepcopy(cfg.to_dict())
    try:
        runner = Runner.from_cfg(cfg)
        while_running = copy.deepcopy(runner.cfg.to_dict())
        runner.train()
    finally:
        if launched:
            torch.distributed.destroy_process_group()
    assert cfg.to_dict() == before
    assert runner.cfg.to_dict() == while_running and while_running.items() >= own.items()
    assert Config.fromfile(runner.dumped_config).to_dict().items() >= own.items()
    text = read_checkpoint(tmp_path / 'epoch_2.pth')['meta']['cfg']
    assert all(key in text for key in own)


def test_recomputation_is_turned_on_once(tmp_path):
    """mmengine's Runner would turn it on, too."""
    model = Toy()
    passes = []
    forward = model.layer.forward
    model.layer.forward = lambda x: [passes.append(1), forward(x)][1]
    toy_runner(tmp_path, model=model, cfg=dict(activation_checkpointing='layer')).train()
    assert len(passes) == 2 * 6


class ConvToy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 1, 1))

    def forward(self, x, mode='tensor'):
        return dict(loss=self.layers(x).square().mean())


def test_a_fused_optimiser_goes_on_in_another_layout(tmp_path):
    """As with --channels-last after a start without it: a fused optimiser reads moments in memory order."""
    x, ends = torch.rand(2, 3, 8, 8), []
    for fused in (False, True):
        state = None
        for channels_last in (False, True):
            torch.manual_seed(0)
            runner = toy_runner(tmp_path, model=ConvToy(), cfg=dict(channels_last=channels_last))
            wrapper = runner.build_optim_wrapper(dict(optimizer=dict(type='AdamW', lr=.1, fused=fused)))
            if state is not None:
                wrapper.load_state_dict(state)
            wrapper.update_params(runner.model(x)['loss'])
            state = wrapper.state_dict()
        ends.append([p.detach() for p in runner.model.parameters()])
    torch.testing.assert_close(*ends)


class Averaged(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


def test_activation_checkpointing_names_parts_below_test_time_augmentation(tmp_path):
    """The config in a work dir keeps it, so it is there in a test, too."""
    model = toy_runner(tmp_path, model=Averaged(ConvToy()), cfg=dict(activation_checkpointing=['layers'])).model
    assert 'forward' in vars(model.module.layers)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_gradients_lie_like_their_weights(memory_format, tmp_path):
    """Where a dimension has size 1 its stride means nothing, but fused optimisers compare it on a GPU."""
    model = toy_runner(tmp_path, model=ConvToy(), cfg=dict(channels_last=True)).model
    model(torch.rand(2, 3, 8, 8).contiguous(memory_format=memory_format))['loss'].backward()
    for parameter in model.parameters():
        assert parameter.grad.stride() == parameter.stride()


@pytest.mark.parametrize('optimizer, fused', [
    (dict(type='AdamW'), True), (dict(type=torch.optim.Adam), True), (dict(type='AdamW', fused=False), False),
    (dict(type='AdamW', foreach=True), None), (dict(type='AdamW', differentiable=True), None),
    (dict(type='SGD', lr=.1), None)])
def test_adam_is_fused(optimizer, fused, tmp_path):
    cfg = dict(optimizer={**optimizer, 'weight_decay': .1}, paramwise_cfg=dict(bias_decay_mult=0.))
    wrapper = toy_runner(tmp_path).build_optim_wrapper(cfg)
    assert {group['fused'] for group in wrapper.optimizer.param_groups} == {fused}


@pytest.mark.parametrize('before, now', [(None, None), (True, False)])
def test_the_config_says_whether_a_resumed_optimiser_is_fused(before, now, tmp_path):
    """The checkpoint does not: the loss scaler looks at how the optimiser was built, and stops at another form."""
    torch.manual_seed(0)
    runner, x, state = toy_runner(tmp_path, model=ConvToy()), torch.rand(2, 3, 8, 8), None
    for fused in (before, now):
        if fused is None and state is None:  # as mmengine's Runner builds it
            wrapper = build_optim_wrapper(runner.model, dict(optimizer=dict(type='AdamW')))
        else:
            form = {} if fused is None else dict(fused=fused)
            wrapper = runner.build_optim_wrapper(dict(optimizer=dict(type='AdamW', **form)))
        if state is not None:
            wrapper.load_state_dict(state)
        scaler = torch.amp.GradScaler('cpu')
        scaler.scale(runner.model(x)['loss']).backward()
        scaler.step(wrapper.optimizer)
        state = wrapper.state_dict()
    assert {group['fused'] for group in wrapper.optimizer.param_groups} == {now is None}
    assert {float(value['step']) for value in wrapper.optimizer.state.values()} == {2.}


def test_several_optimisers(tmp_path):
    """mmengine takes several optimisers as built objects, by name."""
    runner = toy_runner(tmp_path, model=ConvToy())
    parts = {name: OptimWrapper(torch.optim.SGD(layer.parameters(), lr=.1))
             for name, layer in zip('abc', runner.model.layers)}
    built = runner.build_optim_wrapper(dict(parts))
    assert dict(built.items()) == parts
    with pytest.raises(ValueError, match='number of parameter groups|size of'):
        parts['a'].load_state_dict(dict(state={}, param_groups=[]))


class Fails(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        raise ArithmeticError


def test_after_an_error_process_and_model_are_as_before(tmp_path):
    def handler(*_):
        pass

    before = signal.signal(signal.SIGTERM, handler)
    try:
        runner = toy_runner(tmp_path, custom_hooks=[Fails()])
        with pytest.raises(ArithmeticError):
            runner.train()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not runner.model._forward_hooks and not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks


def test_accumulated_batches_scale_the_learning_rate_as_one(tmp_path):
    wrapper = dict(type='OptimWrapper', accumulative_counts=4, optimizer=dict(type='SGD', lr=.01))
    runner = toy_runner(tmp_path, optim_wrapper=wrapper, auto_scale_lr=dict(enable=True, base_batch_size=16))
    runner.train()  # batches of two
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(.01 * 2 * 4 / 16)


@pytest.mark.parametrize('form', ['CocoMetric', 'mmdet.CocoMetric', 'a class'])
def test_metrics_of_ours_in_the_place_of_the_toolboxes(form):
    init_default_scope('mmdet')
    theirs, own = CheckedCocoMetric.__base__, CheckedCocoMetric
    metric = theirs if form == 'a class' else form
    other = dict(type='Accuracy')
    assert with_metric([dict(type=metric, ann_file='a'), other], theirs, own) == [
        dict(type=own, ann_file='a'), other]
    assert with_metric(dict(type='Evaluator', metrics=[dict(type=metric)]), theirs, own) == dict(
        type='Evaluator', metrics=[dict(type=own)])
    assert with_metric(other, theirs, own) is other


def test_scores_that_are_no_single_numbers_are_written(tmp_path, capsys):
    metrics = {'accuracy/top1': np.float32(50), 'precision_classwise': [1., 2.], 'matrix': torch.ones(2, 2), 'n': 3}
    report_scores(SimpleNamespace(work_dir=str(tmp_path)), metrics, {})
    assert json.loads((tmp_path / 'scores.json').read_text()) == {
        'accuracy/top1': 50, 'precision_classwise': [1, 2], 'matrix': [[1, 1], [1, 1]], 'n': 3}
    assert 'top-1' in capsys.readouterr().out


@pytest.mark.parametrize('number', [3, 40])
def test_the_scores_of_each_class_are_printed(number, tmp_path, capsys, monkeypatch):
    """The worst of many classes, and none of those that cannot be scored; the file has all."""
    monkeypatch.setenv('COLUMNS', '100')
    names = ['[red]no markup', *(f'class {i}' for i in range(1, number))]
    of_classes = {'class': names, 'objects': [0, 9, *[10] * (number - 2)],
                  'box AP': [float('nan'), *(.5 + i / 100 for i in range(1, number))]}
    report_scores(SimpleNamespace(work_dir=str(tmp_path)), {'coco/bbox_mAP': .5}, of_classes)
    rows = [[cell.strip() for cell in line.split('│')[1:-1]] for line in capsys.readouterr().out.splitlines()
            if '│' in line][1:]
    assert ['class 1', '9', '0.51', 'few in test'] in rows and ['class 2', '10', '0.52', ''] in rows
    assert (['[red]no markup', '0', '–', 'none in test'] in rows) == (number == 3)
    assert len(rows) == (3 if number == 3 else 20)
    written = json.loads((tmp_path / 'scores.json').read_text())['classes']
    assert len(written) == number and written[1] == {'class': 'class 1', 'objects': 9, 'box AP': .51}
    assert written[0] == {'class': '[red]no markup', 'objects': 0, 'box AP': None}


@pytest.mark.parametrize('best, named', [(dict(a='best_a.pth', b=None), 'best_a.pth'), ({}, 'epoch_2.pth')])
def test_the_best_of_several_metrics_is_named(best, named, capsys):
    hook = CheckpointHook(save_best=['a', 'b'], rule='greater')
    hook.best_ckpt_path_dict, hook.last_ckpt = best, 'epoch_2.pth'
    report_training(SimpleNamespace(hooks=[hook], dumped_config='config.py', logger=logging.getLogger('test')))
    assert f'config.py {named}\n' in capsys.readouterr().out


def test_mixed_precision_falls_back_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    runner = toy_runner(tmp_path)
    wrapper = runner.build_optim_wrapper(
        dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD', lr=.1)))
    assert type(wrapper).__name__ == 'OptimWrapper'


def test_checkpoint_is_renamed_when_whole(tmp_path, monkeypatch):
    runner = toy_runner(tmp_path)
    monkeypatch.setattr('mmengine.runner.runner.save_checkpoint',
                        lambda checkpoint, path, **_: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(UserError, match='epoch_1.pth cannot be written .disk full.; earlier checkpoints are intact'):
        runner.train()
    assert not list(tmp_path.glob('*.pth')) and not (tmp_path / 'last_checkpoint').exists()


def test_config_text_in_a_checkpoint_is_not_executed(tmp_path):
    runner = toy_runner(tmp_path)
    runner.train()
    path, mark = tmp_path / 'epoch_1.pth', tmp_path / 'mark'
    checkpoint = read_checkpoint(path)
    checkpoint['meta']['config'] = f"open({str(mark)!r}, 'w')"
    torch.save(checkpoint, path)
    again = toy_runner(tmp_path, load_from=str(path), resume=True)
    again.train()
    assert again.epoch == 2 and not mark.exists()


@pytest.fixture
def resume_changed(tmp_path):
    """Resumes from a checkpoint of a toy training after a change to it."""

    def resume(change, **options) -> Runner:
        options = dict(param_scheduler=dict(type='LinearLR', end=9, by_epoch=False), optim_wrapper=dict(
            optimizer=dict(type='Adam', lr=.01)), **options)
        toy_runner(tmp_path / 'a', **options).train()
        checkpoint = read_checkpoint(tmp_path / 'a' / 'epoch_1.pth')
        change(checkpoint)
        torch.save(checkpoint, tmp_path / 'x.pth')
        runner = toy_runner(tmp_path / 'b', load_from=str(tmp_path / 'x.pth'), resume=True, **options)
        runner.train()
        return runner

    return resume


def test_a_changed_checkpoint_without_changes_is_resumed(resume_changed):
    assert resume_changed(lambda c: None).iter == 6


@pytest.mark.parametrize('change, message', [
    (lambda c: c.pop('optimizer'), 'optimizer missing'),
    (lambda c: c.pop('param_schedulers'), 'param_schedulers missing'),
    (lambda c: c.update(meta=None), 'holds no state of this training'),
    (lambda c: c['meta'].update(iter=-3), 'iter -3'),
    (lambda c: c['meta'].update(epoch='1'), "epoch '1'"),
    (lambda c: c['param_schedulers'].clear(), 'param_schedulers of another training'),
    (lambda c: c['param_schedulers'][0].pop('last_step'), 'param_schedulers of another training'),
    (lambda c: c['optimizer']['param_groups'][0].update(lr='1'), 'optimizer of another training'),
    (lambda c: c['optimizer']['param_groups'][0]['params'].pop(), 'optimizer of another training'),
    (lambda c: c['optimizer']['state'][0].pop('exp_avg'), 'exp_avg of parameter 0 missing'),
    (lambda c: c['optimizer']['state'][1].update(exp_avg_sq=torch.ones(9)), 'exp_avg_sq of parameter 1 of another'),
    (lambda c: c['optimizer']['state'][1].update(step=torch.ones(1).expand(2**40)), 'step of parameter 1 of another'),
    (lambda c: c['message_hub'].pop('log_scalars'), 'cannot be resumed from'),
    (lambda c: c['message_hub']['runtime_info'].update(keep_ckpt_ids=['../x']), 'keep_ckpt_ids that are no numbers'),
])
def test_an_altered_state_of_a_training_is_refused(change, message, resume_changed):
    with pytest.raises(UserError, match=message):
        resume_changed(change)


def test_a_checkpoint_cannot_have_other_files_removed(resume_changed, tmp_path):
    """mmengine removes the best checkpoint, a file or a folder, when there is a better one."""
    (tmp_path / 'precious').mkdir()
    runner = resume_changed(lambda c: c['message_hub']['runtime_info'].update(best_ckpt=str(tmp_path / 'precious')))
    assert runner.message_hub.get_info('best_ckpt') == str(tmp_path / 'b' / 'best_precious')


def test_a_checkpoint_that_does_not_fit_is_an_error(tmp_path):
    torch.save(dict(state_dict=nn.Linear(3, 1).state_dict()), tmp_path / 'x.pth')
    with pytest.raises(UserError, match='does not fit the model'):
        toy_runner(tmp_path, load_from=str(tmp_path / 'x.pth')).train()


def test_another_shape_is_no_damage(tmp_path):
    runner = toy_runner(tmp_path / 'a')
    state = {'layer.weight': torch.ones(3, 2), 'layer.bias': torch.ones(3)}
    torch.save(dict(state_dict=state), tmp_path / 'x.pth')
    with pytest.raises(UserError, match='does not fit the model.*layer.weight'):
        runner.load_checkpoint(str(tmp_path / 'x.pth'))
    torch.save(dict(state_dict=Toy().state_dict()), tmp_path / 'x.pth')
    with pytest.raises(UserError, match='holds no state of this training'):
        toy_runner(tmp_path / 'b', load_from=str(tmp_path / 'x.pth'), resume=True).train()


def test_more_processes_than_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    for name, value in dict(RANK=0, WORLD_SIZE=2, LOCAL_RANK=0, LOCAL_WORLD_SIZE=2, MASTER_ADDR='127.0.0.1',
                            MASTER_PORT=1, TORCHELASTIC_RUN_ID=1).items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match='2 processes for 1 GPUs'):
        toy_runner(tmp_path, launcher='pytorch')


def test_process_group_names_what_the_launcher_did_not_set(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(UserError, match='did not set WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT'):
        set_environment('pytorch')


def test_progress_is_printed_where_the_log_is_silent(tmp_path, capsys):
    runner = toy_runner(tmp_path, log_level='WARNING')
    next(h for h in runner.hooks if isinstance(h, ProgressHook)).plain_interval = 0
    runner.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('train: ')]
    assert len(lines) == 6 and lines[-1].startswith('train: 6 of 6, 100 %')
    logging.getLogger().handlers.clear()


def test_read_curve_joins_interrupted_runs(tmp_path):
    for run, records in dict(a=[(1, 5.), (2, 4.), (3, 3.)], b=[(3, 2.5), (4, 2.)]).items():
        folder = tmp_path / run / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(json.dumps(dict(loss=v, step=s)) for s, v in records))
    assert read_curve(tmp_path, 'loss') == ([1, 2, 3, 4], [5., 4., 2.5, 2.])


def test_init_model(tmp_path, device):
    model = init_model(CLASSIFICATION, device=device)
    assert not model.training and model.cfg.default_scope == 'mmpretrain'
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'w.pth')
    again = init_model(Config.fromfile(CLASSIFICATION), tmp_path / 'w.pth', device)
    batch = dict(inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)] * 2)
    a, b = (m(**m.data_preprocessor(batch, False), mode='predict') for m in (model, again))
    assert torch.equal(a[0].pred_score, b[0].pred_score)
    with pytest.raises(UserError, match='lacks'):
        torch.save(dict(state_dict={}), tmp_path / 'w.pth')
        init_model(CLASSIFICATION, tmp_path / 'w.pth')


def test_doctor_sees_this_machine():
    seen = list(examine())
    findings = {f.subject: f for f in seen}
    assert findings['torch'].state == torch.__version__.split('+')[0]
    assert 'mmcv operators' in findings
    assert any(f.subject == 'detection' and f.state.startswith('ready (mmdet 3.') for f in seen)


@pytest.mark.parametrize('name, version, remedy', [
    ('opencv-python', '5.0.0.93', 'opencv-python<5'), ('mmcv', '2.2.0', 'mmcv==2.1.0'),
    ('mmcv-lite', '2.1.0', ''), ('torch', '2.5.1', 'torch>=2.6'), ('torch', '2.11.0', '')])
def test_doctor_knows_the_traps(name, version, remedy):
    found = _version_remedy(name, version)
    assert remedy in found and bool(found) == bool(remedy)
    assert Finding('a', 'b').remedy == ''
