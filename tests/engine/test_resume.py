"""Interrupted and resumed training against uninterrupted training, bit for bit; and what it rests on."""
import copy
import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4  # names of Runners; the seeds of a training repeat those of random

import numpy as np
import pytest
import torch
from conftest import read_config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import METRICS, MODELS
from torch import nn
from torch.utils.data import DataLoader

from dwnet.checkpoint import read_checkpoint
from dwnet.engine import Runner
from dwnet.engine.checkpoints import newest_whole_checkpoint, point_to
from dwnet.engine.hooks import non_finite
from dwnet.engine.hooks.non_finite import as_plain
from dwnet.engine.hooks.preemption import OutlastSigterm, Preempted
from dwnet.engine.reproducible import SampleReader, build_train_loader, seed_generators
from dwnet.errors import UserError


class Noise(torch.utils.data.Dataset):
    """Samples that differ from read to read, by all three libraries' random numbers."""

    def __init__(self, length: int = 22, broken: tuple = ()) -> None:
        self.length, self.broken = length, broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        if index in self.broken:
            raise OSError(f'image{index}.jpg is truncated')
        if not 0 <= index < self.length:
            raise IndexError(index)
        return dict(x=torch.tensor([index / 10, random.random(), np.random.rand()]) + torch.rand(3))

    def get_data_info(self, index: int) -> dict:
        return dict(img_path=f'data/image{index}.jpg')


@MODELS.register_module()
class NoisyNet(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(.3), nn.Linear(8, 1))
        self.poison: tuple = ()  # forward passes whose loss is not finite
        self.passes = 0

    def forward(self, x, mode='tensor'):
        x = torch.stack(list(x))
        self.passes += 1
        if self.passes in self.poison:
            x = x * float('nan')
        y = self.layers(x)
        return dict(loss=(y - 1).square().mean() * (1 + np.random.rand() / 10)) if mode == 'loss' else [y]


class Stop(Hook):
    """Ends the training as a kill would: at once, after a number of steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.after:
            raise InterruptedError


def runner_for(folder, by_epoch=True, sampler='DefaultSampler', workers=2, seed=0, hooks=(), data=None, accumulate=1,
               ema=None, **options) -> Runner:
    steps = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=17)
    return Runner(
        model=dict(type='NoisyNet'), work_dir=str(folder), experiment_name=uuid4().hex,
        train_dataloader=dict(batch_size=4, sampler=dict(type=sampler, shuffle=True), dataset=data or Noise(),
                              num_workers=workers),
        train_cfg=steps, randomness=dict(seed=seed), log_level='WARNING',
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=.01), accumulative_counts=accumulate),
        param_scheduler=[dict(type='LinearLR', start_factor=.1, by_epoch=False, end=7),
                         dict(type='CosineAnnealingLR', by_epoch=by_epoch, T_max=3 if by_epoch else 17)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=5, max_keep_ckpts=2)),
        custom_hooks=[ema or dict(type='EMAHook'), *hooks], **options)


def state_of(runner: Runner) -> dict:
    ema = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    return {**runner.model.state_dict(), **{f'ema.{k}': v for k, v in ema.ema_model.state_dict().items()},
            **{f'adam.{i}.{k}': v for i, s in runner.optim_wrapper.optimizer.state_dict()['state'].items()
               for k, v in s.items()}}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('by_epoch, sampler, stop', [
    (True, 'DefaultSampler', 8), (True, 'DefaultSampler', 13), (False, 'DefaultSampler', 8),
    (False, 'InfiniteSampler', 14)])
@pytest.mark.parametrize('workers, then, accumulate', [(0, 0, 1), (2, 2, 2), (2, 1, 1)])
def test_resumed_training_ends_bit_identical(by_epoch, sampler, stop, workers, then, accumulate, tmp_path):
    whole = runner_for(tmp_path / 'whole', by_epoch, sampler, workers, accumulate=accumulate)
    whole.train()
    with pytest.raises(InterruptedError):
        runner_for(tmp_path / 'cut', by_epoch, sampler, workers, hooks=[Stop(stop)], accumulate=accumulate).train()
    assert (tmp_path / 'cut/last_checkpoint').read_text().endswith(f'iter_{stop // 5 * 5}.pth')
    torch.manual_seed(99)  # another process begins elsewhere
    resumed = runner_for(tmp_path / 'cut', by_epoch, sampler, then, resume=True, accumulate=accumulate)
    resumed.train()
    assert resumed.iter == whole.iter and same(state_of(whole), state_of(resumed))


@METRICS.register_module()
class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return dict(batches=len(results))


class Validations(Hook):
    """At which epoch and step each one began; the training is killed in the n-th."""

    def __init__(self, kill: int = 0) -> None:
        self.kill, self.seen = kill, []

    def before_val(self, runner):
        self.seen.append((runner.epoch, runner.iter))
        if len(self.seen) == self.kill:
            raise InterruptedError


@pytest.mark.parametrize('by_epoch, kill, expected', [
    (True, 2, [(2, 12), (3, 18)]), (True, 3, [(3, 18)]),
    (False, 2, [(0, 10), (0, 15), (0, 17)]), (False, 4, [(0, 17)])])
def test_a_validation_that_was_cut_short_is_made_up(by_epoch, kill, expected, tmp_path):
    def train(hook: Validations, **options) -> None:
        runner = runner_for(tmp_path, by_epoch, workers=0, hooks=[hook], val_cfg=dict(),
                            val_dataloader=dict(batch_size=4, sampler=dict(type='DefaultSampler', shuffle=False),
                                                dataset=Noise(), num_workers=0),
                            val_evaluator=dict(type='Count'), **options)
        runner._train_loop['val_interval'] = 1 if by_epoch else 5
        next(h for h in runner.hooks if type(h).__name__ == 'SafeCheckpointHook').interval = 6 if by_epoch else 5
        runner.train()

    killed, resumed = Validations(kill), Validations()
    with pytest.raises(InterruptedError):
        train(killed)
    train(resumed, resume=True)
    assert resumed.seen == expected


@pytest.mark.parametrize('by_epoch', [True, False])
def test_data_without_a_batch_are_an_error(by_epoch, tmp_path):
    runner = runner_for(tmp_path, by_epoch, workers=0, data=Noise(3))
    runner._train_dataloader['drop_last'] = True
    with pytest.raises(UserError, match='the training data make no single batch'):
        runner.train()


def test_another_seed_gives_another_training(tmp_path):
    a, b = (runner_for(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    a.train(), b.train()
    assert not same(a.model.state_dict(), b.model.state_dict())


def test_a_seed_that_nobody_chose_is_resumed_too(tmp_path):
    with pytest.raises(InterruptedError):
        runner_for(tmp_path / 'cut', seed=None, hooks=[Stop(8)]).train()
    seed = read_checkpoint(tmp_path / 'cut/iter_5.pth')['meta']['seed']
    whole = runner_for(tmp_path / 'whole', seed=seed)
    whole.train()
    named = shutil.copy(tmp_path / 'cut/iter_5.pth', tmp_path / 'named.pth')
    for folder, options in (('cut', dict()), ('other', dict(load_from=str(named)))):
        resumed = runner_for(tmp_path / folder, seed=None, resume=True, **options)
        resumed.train()
        assert same(state_of(whole), state_of(resumed))


def test_epochs_of_another_length_are_whole(tmp_path, capfd):
    """As with other processes or batches: no epoch is passed over, and the log says that this is not exact."""
    with pytest.raises(InterruptedError):
        runner_for(tmp_path, hooks=[Stop(11)]).train()  # from step 10, the fourth of the second epoch's six
    resumed = runner_for(tmp_path, resume=True, data=Noise(40))
    resumed.train()
    assert resumed.iter == 10 + 2 * 10 and resumed.epoch == 3
    assert 'an epoch had 6 steps and has 10 now' in ''.join(capfd.readouterr())


def test_steps_of_another_size_are_told(tmp_path, capfd):
    with pytest.raises(InterruptedError):
        runner_for(tmp_path, by_epoch=False, sampler='InfiniteSampler', hooks=[Stop(11)]).train()
    runner_for(tmp_path, by_epoch=False, sampler='InfiniteSampler', resume=True, data=Noise(40)).train()
    said = ''.join(capfd.readouterr())
    assert "began with {'steps_an_epoch': 6} and has {'steps_an_epoch': 10} now" in said
    runner_for(tmp_path, by_epoch=False, sampler='InfiniteSampler', resume=True, data=Noise(40)).train()
    assert 'the training began with' not in ''.join(capfd.readouterr())


def test_a_checkpoint_of_an_unfused_optimiser_is_resumed(tmp_path):
    """As mmengine's Runner writes it."""
    whole = runner_for(tmp_path / 'whole', workers=0)
    whole.train()
    with pytest.raises(InterruptedError):
        runner_for(tmp_path / 'cut', workers=0, hooks=[Stop(8)]).train()
    file, = (tmp_path / 'cut').glob('iter_5.pth')
    checkpoint = read_checkpoint(file)
    for group in checkpoint['optimizer']['param_groups']:
        group['fused'] = None
    torch.save(checkpoint, file)
    resumed = runner_for(tmp_path / 'cut', workers=0, resume=True)
    resumed.train()
    assert same(state_of(whole), state_of(resumed))


def test_averaged_weights_are_not_resumed_as_others(tmp_path):
    """The file's weights are the averages; the optimiser's state belongs to those that are averaged."""
    with pytest.raises(InterruptedError):
        runner_for(tmp_path, hooks=[Stop(8)]).train()
    resumed = runner_for(tmp_path, resume=True)
    resumed._hooks = [hook for hook in resumed.hooks if type(hook).__name__ != 'EMAHook']
    with pytest.raises(UserError, match='averages its weights: resume it with --ema'):
        resumed.train()


@pytest.mark.parametrize('rate', [.01, 1e-4])
def test_another_learning_rate_is_told(rate, tmp_path, capfd):
    with pytest.raises(InterruptedError):
        runner_for(tmp_path, hooks=[Stop(8)]).train()
    resumed = runner_for(tmp_path, resume=True)
    resumed.optim_wrapper['optimizer']['lr'] = rate
    resumed.train()
    told = 'that which the training began with, 0.01 at its peak, not 0.0001' in ''.join(capfd.readouterr())
    assert told == (rate != .01)


def test_sigterm_saves_in_the_middle_of_an_epoch(tmp_path):
    class Terminate(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 8:  # to the data workers, too, as launchers send it
                workers = [str(process.pid) for process in multiprocessing.active_children()]
                assert len(workers) == 2
                subprocess.run(['bash', '-c', 'kill "$@"', 'bash', *workers], check=True)
                os.kill(os.getpid(), signal.SIGTERM)

    whole = runner_for(tmp_path / 'whole')
    whole.train()
    with pytest.raises(Preempted, match='saved in .*/preempted.pth after step 9; --resume'):
        runner_for(tmp_path / 'cut', hooks=[Terminate()]).train()
    resumed = runner_for(tmp_path / 'cut', resume=True)
    resumed.train()
    assert same(state_of(whole), state_of(resumed))
    assert not (tmp_path / 'cut/preempted.pth').exists()  # a newer one took its place


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_data_workers_obey_their_training_alone(method):
    loader = DataLoader(Noise(), num_workers=1, persistent_workers=True, worker_init_fn=OutlastSigterm(None),
                        multiprocessing_context=method)
    batches = iter(loader)
    next(batches)
    worker, = multiprocessing.active_children()
    subprocess.run(['bash', '-c', f'kill {worker.pid}'], check=True)  # another process; /bin/kill may be missing
    assert len(list(batches)) == 21 and worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert not worker.is_alive() and worker.exitcode == 0


@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_workers_start_by_any_method(method, tmp_path):
    """Windows and macOS spawn them; Python 3.14 has a server that forks them."""
    before = multiprocessing.get_start_method(allow_none=True)
    alone = runner_for(tmp_path / 'alone', by_epoch=False, workers=0)
    alone.train()
    try:
        helped = runner_for(tmp_path / 'helped', by_epoch=False, workers=1,
                            env_cfg=dict(mp_cfg=dict(mp_start_method=method)))
        helped.train()
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert same(state_of(alone), state_of(helped))


@pytest.mark.parametrize('config', [
    'classification/dwnet-nano_digits', 'detection/cascade-mask-rcnn_dwnet-nano_fpn_digits',
    'segmentation/upernet_dwnet-nano_digits'])
def test_data_sets_can_be_sent_to_workers(config, small_digits):
    """A worker that is not forked gets its data set, and what it calls, pickled."""
    cfg = read_config(f'configs/{config}.py')
    for part in ('train', 'val'):
        dataset = cfg[f'{part}_dataloader'].dataset
        dataset.data_root = str(small_digits / Path(dataset.data_root).relative_to('data/digits'))
    runner = SimpleNamespace(build_dataloader=Runner.build_dataloader, seed=0, _randomness_cfg={})
    for loader in (build_train_loader(runner, cfg.train_dataloader, endless=False),
                   Runner.build_dataloader(cfg.val_dataloader)):
        assert loader.num_workers
        for sent in (loader.dataset, loader.worker_init_fn, loader.collate_fn):
            ForkingPickler.dumps(sent)


def test_the_newest_whole_checkpoint_is_resumed(tmp_path, caplog):
    runner_for(tmp_path).train()
    assert sorted(f.name for f in tmp_path.glob('*.pth')) == ['iter_15.pth', 'iter_18.pth']
    assert newest_whole_checkpoint(tmp_path) == tmp_path / 'iter_18.pth'
    data = (tmp_path / 'iter_18.pth').read_bytes()
    for damaged in (b'', data[:-1000], data[:100]):
        (tmp_path / 'iter_18.pth').write_bytes(damaged)
        assert newest_whole_checkpoint(tmp_path) == tmp_path / 'iter_15.pth'
    torch.save(dict(state_dict=NoisyNet().state_dict()), tmp_path / 'iter_18.pth')  # weights alone
    assert newest_whole_checkpoint(tmp_path) == tmp_path / 'iter_15.pth'
    (tmp_path / 'moved.pth').symlink_to('nowhere')
    (tmp_path / 'folder.pth').mkdir()
    for pointer in ('', '/nowhere/iter_15.pth', '\x00'):
        (tmp_path / 'last_checkpoint').write_text(pointer)
        assert newest_whole_checkpoint(tmp_path) == tmp_path / 'iter_15.pth'
    (tmp_path / 'iter_15.pth').write_bytes(b'')
    with pytest.raises(UserError, match='none of the 2 checkpoints'):
        newest_whole_checkpoint(tmp_path)
    assert newest_whole_checkpoint(tmp_path / 'empty') is None


def test_the_oldest_checkpoint_goes_last(tmp_path, monkeypatch):
    """At every moment of a save there is a whole checkpoint with a pointer to it."""
    seen = []
    replace = os.replace

    def watch(source, target):
        pointer = tmp_path / 'last_checkpoint'
        if pointer.is_file():
            seen.append(os.path.isfile(pointer.read_text()))
        return replace(source, target)

    monkeypatch.setattr(os, 'replace', watch)
    runner = runner_for(tmp_path)
    next(h for h in runner.hooks if type(h).__name__ == 'SafeCheckpointHook').max_keep_ckpts = 1
    runner.train()
    assert len(seen) >= 5 and all(seen)
    assert [f.name for f in tmp_path.glob('*.pth')] == ['iter_18.pth']


def test_the_pointer_is_whole_or_the_old_one(tmp_path, monkeypatch):
    point_to('a.pth', tmp_path)
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError):
        point_to('b.pth', tmp_path)
    assert (tmp_path / 'last_checkpoint').read_text() == 'a.pth'


@pytest.mark.parametrize('workers', [0, 2])
def test_samples_that_cannot_be_read(workers, tmp_path, capfd):
    runner_for(tmp_path / 'a', workers=workers, data=Noise(broken=(3, 7))).train()
    printed = ''.join(capfd.readouterr())
    assert all(f'data/image{i}.jpg cannot be read and is left out (OSError: image{i}.jpg is truncated)' in printed
               for i in (3, 7))
    with pytest.raises(UserError, match='^11 of 22 training samples cannot be read, more than 10; the log .*[^\\n]$'):
        runner_for(tmp_path / 'b', workers=workers, data=Noise(broken=tuple(range(11)))).train()


def test_a_pipeline_that_reads_nothing_is_named_at_once():
    reader = SampleReader(Noise(2000, broken=tuple(range(2000))), seed=5)
    with pytest.raises(UserError, match='ten training samples.*cannot be read: is the pipeline at fault.*OSError'):
        reader([(3, 0, 0)])
    assert reader.unreadable.sum() <= 10


def test_samples_are_seeded_by_their_place():
    reader = SampleReader(Noise(), seed=5)
    a, b, c = (reader([(3, epoch, place)])[0]['x'] for epoch, place in ((0, 3), (0, 3), (1, 3)))
    assert torch.equal(a, b) and not torch.equal(a, c)
    seed_generators(1, 2, 3)
    draws = random.random(), np.random.rand(), torch.rand(1).item()
    seed_generators(1, 2, 3, 0)
    assert not {random.random(), np.random.rand(), torch.rand(1).item()} & {*draws}


class Poison(Hook):
    def __init__(self, *passes: int) -> None:
        self.passes = passes

    def before_train(self, runner):
        runner.model.poison = self.passes


@pytest.fixture(params=['at once', 'late'])
def fused(request, monkeypatch) -> bool:
    """Whether the flags are read as on a GPU, in the next step."""
    if request.param == 'late':
        monkeypatch.setattr(non_finite, 'reads_late', lambda *_: True)
    return request.param == 'late'


@pytest.mark.parametrize('accumulate', [1, 2])
def test_steps_that_are_not_finite_are_skipped(accumulate, fused, tmp_path, capfd):
    class Watch(Hook):
        priority = 'LOWEST'
        states: list = []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.states.append({k: v.clone() for k, v in runner.model.state_dict().items()})

    watch = Watch()
    watch.states = []
    runner = runner_for(tmp_path, by_epoch=False, workers=0, accumulate=accumulate, hooks=[Poison(5, 6), watch])
    runner.optim_wrapper['optimizer']['fused'] = fused
    runner.train()
    states = watch.states
    before = states[3]  # after pass 4
    assert same(before, states[5]) and not same(before, states[7])
    assert all(v.isfinite().all() for v in runner.model.state_dict().values())
    hook = next(h for h in runner.hooks if type(h).__name__ == 'GuardHook')
    assert (hook.skipped, hook.row) == (2 // accumulate, 0)
    numbers = re.findall(r'step (\d+) is skipped', ''.join(capfd.readouterr()))
    assert numbers == (['5', '6'] if accumulate == 1 else ['6'])
    adam = runner.optim_wrapper.optimizer.state_dict()['state']
    assert all(v.isfinite().all() for s in adam.values() for v in s.values())


def test_an_infinite_loss_with_finite_gradients_is_skipped(fused, tmp_path):
    runner = runner_for(tmp_path, by_epoch=False, workers=0)
    runner.optim_wrapper['optimizer']['fused'] = fused
    forward = runner.model.forward
    runner.model.forward = lambda x, mode: {'loss': forward(x, mode)['loss'], 'loss_b': torch.tensor(float('inf'))}
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    with pytest.raises(UserError, match='17 steps in a row'):
        next(h for h in runner.hooks if type(h).__name__ == 'GuardHook').in_a_row = 17
        runner.train()
    assert same(before, runner.model.state_dict())
    batch = torch.load(tmp_path / 'not_finite_step17_rank0.pth', weights_only=True)
    assert torch.stack(batch['x']).shape == (4, 3)


class Driven:
    """A guard over a fused AdamW, step by step, without mmengine's own reading of losses."""

    def __init__(self, folder) -> None:
        self.model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=.1, fused=True)
        self.runner = SimpleNamespace(
            optim_wrapper=OptimWrapper(self.optimizer), model=self.model, hooks=[], iter=0, work_dir=str(folder),
            logger=logging.getLogger('driven'), message_hub=MessageHub.get_instance(uuid4().hex))
        self.hook = non_finite.GuardHook()
        self.hook.before_train(self.runner)

    def step(self, factor: float = 1., scaler: torch.amp.GradScaler | None = None, gradient: float = 1.) -> dict:
        """Returns the state behind it, the optimiser's included."""
        self.hook.before_train_iter(self.runner, 0)
        loss = self.model(torch.rand(4, 3)).square().mean() * factor
        self.hook._see_losses(self.model, (), dict(loss=loss))
        self.optimizer.zero_grad()
        (loss if scaler is None else scaler.scale(loss)).backward()
        self.model[2].weight.grad *= gradient
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.hook.after_train_iter(self.runner, 0)
        self.runner.iter += 1
        return copy.deepcopy({**self.model.state_dict(), **{
            f'{i}.{key}': value for i, state in self.optimizer.state_dict()['state'].items()
            for key, value in state.items()}})


def test_no_step_waits_for_the_gpu(fused, tmp_path, monkeypatch):
    """The host reads only the flags of the previous step, once."""
    driven, read = Driven(tmp_path), []
    for name in ('item', 'tolist', 'cpu', 'numpy', '__bool__', '__int__', '__float__', '__index__'):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name,
                            lambda x, *args, method=method: [read.append(x.data_ptr()), method(x, *args)][1])
    flags = []
    for _ in range(4):
        read.clear()
        driven.hook.before_train_iter(driven.runner, 0)
        driven.model(torch.rand(4, 3)).square().mean().backward()
        driven.optimizer.step()
        driven.hook.after_train_iter(driven.runner, 0)
        if fused:
            assert read == flags[-1:]
            flags.append(driven.hook._unread.flags.data_ptr())
        else:
            assert len(read) >= 2


def test_what_a_fused_optimiser_skips(fused, tmp_path):
    driven = Driven(tmp_path)
    before = [driven.step() for _ in range(2)][-1]
    assert same(before, driven.step(float('nan'))) and not same(before, driven.step())
    driven.hook.after_train(driven.runner)
    assert driven.hook.skipped == 1
    driven.hook.close()
    assert 'found_inf' not in vars(driven.optimizer)


@pytest.mark.parametrize('factor, gradient, counted', [(1., float('inf'), 0), (float('inf'), 1., 1)])
def test_what_the_loss_scale_skips_of_a_fused_optimiser(fused, factor, gradient, counted, tmp_path):
    """A skipped step is counted if the loss, too, is not finite."""
    driven, scaler = Driven(tmp_path), torch.amp.GradScaler('cpu')
    weights = dict(driven.model.named_parameters())
    before = copy.deepcopy(weights) if driven.step(scaler=scaler) else None
    driven.step(factor, scaler, gradient)
    driven.hook.after_train(driven.runner)
    assert same(before, weights) and driven.hook.skipped == counted
    driven.step(scaler=scaler)
    assert not same(before, weights)


def test_batches_are_saved_without_code():
    from mmdet.testing import demo_mm_inputs
    plain = as_plain(demo_mm_inputs(2, (3, 32, 32), num_items=[1, 2], with_mask=True))
    sample = plain['data_samples'][0]
    assert sample['gt_instances']['bboxes'].shape == (1, 4) and sample['gt_instances']['masks'].shape == (1, 32, 32)
