"""Several processes compute what one does, whatever the way; and what distributed training asks of the backbone."""
import copy
import itertools
import json
import pickle

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT, run_command, run_python, run_tool
from mmengine.model import MMDistributedDataParallel
from test_engine import toy_runner
from test_tools import CLASSIFICATION, CPU

from dwnet import DWNet
from dwnet.checkpoint import read_checkpoint

NANO = dict(embed_dims=8, depths=(1, 1, 1, 1))


@pytest.fixture
def group():
    """A process group of this process alone."""
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(range(4), n)]


@pytest.mark.parametrize('out_indices', SUBSETS, ids=str)
def test_no_output_leaves_a_parameter_unused(group, out_indices):
    """DistributedDataParallel stops at the second step if a parameter got no gradient in the first."""
    model = MMDistributedDataParallel(DWNet(NANO, out_indices=out_indices), broadcast_buffers=False)
    for _ in range(3):
        sum(x.square().mean() for x in model(torch.rand(2, 3, 32, 32))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_an_unused_parameter_would_have_been_noticed(group):
    backbone = DWNet(NANO, out_indices=(1, 3))
    backbone.unused = torch.nn.Parameter(torch.zeros(1))
    model = MMDistributedDataParallel(backbone, broadcast_buffers=False)
    with pytest.raises(RuntimeError, match='finished reduction'):
        for _ in range(2):
            sum(x.square().mean() for x in model(torch.rand(2, 3, 32, 32))).backward()


class Net(torch.nn.Module):
    """A model with a backbone, as the toolboxes have it."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.backbone = DWNet(NANO, drop_path_rate=.5, **options)


@pytest.mark.parametrize('names', ['backbone', ['backbone.stages.0', 'backbone.stages.2.blocks.0']], ids=str)
@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_activation_checkpointing_changes_no_gradient(names, frozen_stages, tmp_path):
    """The image needs no gradient, so that mmengine's reentrant form would give none to the backbone."""
    results = []
    for key in ({}, dict(activation_checkpointing=names)):
        runner = toy_runner(tmp_path / str(len(results)))
        runner.cfg.merge_from_dict(key)
        torch.manual_seed(0)
        model = runner.wrap_model(None, Net(frozen_stages=frozen_stages)).train()
        sum(x.square().mean() for x in model.backbone(torch.rand(2, 3, 32, 32))).backward()
        results.append(model)
    plain, recomputed = results
    gradients = 0
    for (name, p), q in zip(plain.named_parameters(), recomputed.parameters()):
        assert (p.grad is None) == (q.grad is None) == (not p.requires_grad), name
        if p.requires_grad:
            gradients += 1
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-6, atol=0, msg=name)
    assert gradients >= 20
    for p, q in zip(plain.buffers(), recomputed.buffers()):
        assert torch.equal(p, q), 'running statistics count each batch once'


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
def test_a_copy_of_a_recomputed_model_is_its_own(copied, tmp_path):
    """Such copies are the preflight's, which tries a batch, and EMA's."""
    runner = toy_runner(tmp_path)
    runner.cfg.activation_checkpointing = ['backbone.stages.0', 'backbone']
    names = list(Net().state_dict())
    model = runner.wrap_model(None, Net()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = copied(model)
    sum(x.square().mean() for x in other.backbone(torch.rand(2, 3, 32, 32))).backward()
    assert list(model.state_dict()) == list(other.state_dict()) == names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and all(p.grad is not None for p in other.parameters())
    counts = [value for name, value in other.state_dict().items() if name.endswith('num_batches_tracked')]
    assert counts and all(count == 1 for count in counts), 'it is recomputed, and counts each batch once'


@pytest.fixture(scope='module')
def config(small_digits, tmp_path_factory) -> str:
    """20 updates of the digits classifier: nothing random, and the statistics of BatchNorm frozen."""
    folder = tmp_path_factory.mktemp('config')
    (folder / 'frozen.py').write_text("""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn import BatchNorm2d

@HOOKS.register_module()
class FrozenStatistics(Hook):
    def before_train_iter(self, runner, **_):
        for module in runner.model.modules():
            if isinstance(module, BatchNorm2d):
                module.eval()
""")
    (folder / 'config.py').write_text(f"""
_base_ = {str(ROOT / CLASSIFICATION)!r}
custom_imports = dict(imports=['frozen'])
custom_hooks = [dict(type='FrozenStatistics')]
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root={str(small_digits)!r}, indices=640,
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={str(small_digits)!r}))
val_cfg = val_dataloader = val_evaluator = None
param_scheduler = None
# AdamW divides by the gradient's size, and so turns its rounding into steps of full length where it is all but zero
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=.01, momentum=.9, weight_decay=.05))
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
""")
    return folder / 'config.py'


def train(config, work_dir, processes: int, batch: int, *options: str, last: int = 1) -> dict:
    environment = {**CPU, 'PYTHONPATH': f'{ROOT}:{config.parent}'}
    if '--cfg-options' not in options:
        options = (*options, '--cfg-options')
    arguments = ['--work-dir', work_dir, *options, f'train_dataloader.batch_size={batch}']
    if processes == 1:
        run_python('tools/train.py', config, *arguments, **environment)
    else:
        done = run_command('bash', 'tools/dist_train.sh', config, processes, *arguments, **environment)
        assert 'Warning: Grad strides' not in done.stderr  # which says nothing to the user
    return read_checkpoint(work_dir / f'epoch_{last}.pth')


def flat(state: dict) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in state['state_dict'].values()])


def momentum(state: dict) -> torch.Tensor:
    """The momentum in a checkpoint; in every kind of checkpoint it is whole, as large as the weights."""
    buffers = [each['momentum_buffer'] for each in state['optimizer']['state'].values()]
    weights = [x for key, x in state['state_dict'].items() if 'running' not in key and 'num_batches' not in key]
    assert sorted(b.shape for b in buffers) == sorted(w.shape for w in weights)
    return torch.cat([buffer.double().flatten() for buffer in buffers])


@pytest.fixture(scope='module')
def alone(config, tmp_path_factory) -> dict:
    """One process, batches of 32."""
    return train(config, tmp_path_factory.mktemp('alone'), 1, 32)


@pytest.mark.long
@pytest.mark.parametrize('processes, batch, options', [
    (2, 16, []), (2, 8, ['--cfg-options', 'optim_wrapper.accumulative_counts=2']),
    (2, 16, ['--cfg-options', 'activation_checkpointing=backbone']), (2, 16, ['--strategy', 'fsdp'])],
    ids=['ddp', 'accumulated', 'recomputed', 'fsdp'])
def test_equal_batches_give_equal_weights(config, alone, tmp_path, processes, batch, options):
    state = train(config, tmp_path, processes, batch, *options)
    assert state['meta']['iter'] == 640 // batch // processes
    weights, expected = flat(state), flat(alone)
    # single values by their size, too, but for those around 0: there the rounding decides what ReLU lets through
    assert (weights - expected).norm() < 1e-5 * expected.norm()
    assert ((weights - expected).abs() < 1e-5 * expected.abs().clamp(min=1)).all()
    momenta, expected = momentum(state), momentum(alone)
    assert (momenta - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.long
def test_training_moves_the_weights_by_far_more(alone, config, tmp_path):
    shorter = train(config, tmp_path, 1, 32, '--cfg-options', 'train_dataloader.dataset.indices=608')
    assert shorter['meta']['iter'] == 19
    assert (flat(shorter) - flat(alone)).norm() > 1e-3 * flat(alone).norm()


@pytest.mark.long
def test_sharded_checkpoints_are_like_any_other(config, tmp_path):
    """Those of FSDP are tested in one process, and resumed by both strategies, which end alike."""
    first = tmp_path / 'first'
    train(config, first, 2, 16, '--strategy', 'fsdp')
    run_python('tools/test.py', config, first / 'epoch_1.pth', '--work-dir', first,
               PYTHONPATH=f'{ROOT}:{config.parent}')
    assert json.loads((first / 'scores.json').read_text())['accuracy/top1'] > 10
    ends = []
    for strategy in ('ddp', 'fsdp'):
        work_dir = tmp_path / strategy
        ends.append(train(config, work_dir, 2, 16, '--strategy', strategy, '--resume', first / 'epoch_1.pth',
                          '--cfg-options', 'train_cfg.max_epochs=2', last=2))
        assert 'resumed epoch: 1, iter: 20' in next(work_dir.glob('*/*.log')).read_text()
    assert (flat(ends[0]) - flat(ends[1])).norm() < 1e-5 * flat(ends[0]).norm()
    assert (momentum(ends[0]) - momentum(ends[1])).norm() < 1e-3 * momentum(ends[0]).norm()


def test_only_rank_0_gathers_whole_tensors(tmp_path):
    run_python('-m', 'torch.distributed.run', '--standalone', '--local-addr', 'localhost', '--nproc-per-node', '2',
               'tests/sharded_state.py', tmp_path, **CPU)
    first, second = (json.loads((tmp_path / f'record{rank}.json').read_text()) for rank in range(2))
    assert first['shares'] == first['moments'] == 0
    # of AdamW's state, step, exp_avg and exp_avg_sq, the last two are shared
    assert second['shares'] == second['parameters'] > 0 and second['moments'] == 2 * second['parameters']


@pytest.mark.long
def test_sharded_training_in_bfloat16(config, alone, tmp_path):
    state = train(config, tmp_path, 2, 16, '--strategy', 'fsdp', '--bf16')
    assert all(value.dtype in (torch.float32, torch.int64) for value in state['state_dict'].values())
    difference = (flat(state) - flat(alone)).norm() / flat(alone).norm()
    assert 1e-5 < difference < 1e-2, 'rounded, and the same training'


@pytest.mark.parametrize('options, setting, message', [
    (['--launcher', 'none'], '', 'tools/dist_train.sh'), (['--compile'], '', '--compile'),
    ([], 'channels_last = True', 'channels_last=True'),
    ([], "optim_wrapper = dict(type='AmpOptimWrapper')", 'add --bf16'),
    ([], "custom_hooks = [dict(type='EMAHook')]", 'EMAHook')])
def test_what_fsdp_does_not_go_with(options, setting, message, small_digits, tmp_path):
    (tmp_path / 'c.py').write_text(f'_base_ = {str(ROOT / CLASSIFICATION)!r}\n{setting}')
    data = [f'{part}_dataloader.dataset.data_root={small_digits}' for part in ('train', 'val')]
    done = run_tool('tools/train.py', tmp_path / 'c.py', '--strategy', 'fsdp', '--work-dir', tmp_path, '--launcher',
                    'pytorch', *options, '--cfg-options', *data)
    assert done.returncode == 2 and message in done.stderr.strip().splitlines()[-1], done.stderr


@pytest.mark.parametrize('channels_last', [0, 1])
def test_a_step_of_two_processes(channels_last, tmp_path):
    """It takes one collective operation beside the gradients'; these fit their buckets; both end after one step."""
    done = run_python('-W', 'always', '-m', 'torch.distributed.run', '--standalone', '--local-addr', 'localhost',
                      '--nproc-per-node', '2', 'tests/two_processes.py', tmp_path, channels_last, **CPU)
    assert 'Grad strides' not in done.stderr
    a, b = (json.loads((tmp_path / f'record{rank}.json').read_text()) for rank in range(2))
    assert a == b and a['collectives'] == [1] * 6
    assert a['channels_last'] == bool(channels_last)
    assert a['step'] == 2 and 'is saved in' in a['ended'] and (tmp_path / 'preempted.pth').is_file()
