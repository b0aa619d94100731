"""Several processes compute what one does, whatever the way; and what distributed training asks of the backbone."""
import itertools

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT, run_command, run_python
from mmengine.model import MMDistributedDataParallel
from test_engine import toy_runner
from test_tools import CLASSIFICATION, CPU

from dwnet import DWNet

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
test_dataloader = dict(dataset=dict(data_root={str(small_digits)!r}))
val_cfg = val_dataloader = val_evaluator = None
param_scheduler = None
# AdamW divides by the gradient's size, and so turns its rounding into steps of full length where it is all but zero
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=.05, momentum=.9, weight_decay=.05))
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
""")
    return folder / 'config.py'


def train(config, work_dir, processes: int, batch: int, *options: str) -> dict:
    environment = {**CPU, 'PYTHONPATH': f'{ROOT}:{config.parent}'}
    if not any(option.startswith('--cfg-options') for option in options):
        options = (*options, '--cfg-options')
    arguments = ['--work-dir', work_dir, *options, f'train_dataloader.batch_size={batch}']
    if processes == 1:
        run_python('tools/train.py', config, *arguments, **environment)
    else:
        run_command('bash', 'tools/dist_train.sh', config, processes, *arguments, **environment)
    return torch.load(work_dir / 'epoch_1.pth')


def furthest(a: dict, b: dict) -> float:
    """The largest difference of two state dicts, relative to each tensor's largest value."""
    assert a.keys() == b.keys()
    return max(((a[key] - b[key]).abs().max() / b[key].abs().max().clamp(min=1e-3)).item() for key in b)


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
    assert furthest(state['state_dict'], alone['state_dict']) < 1e-5
    assert len(state['optimizer']['state']) == len(alone['optimizer']['state'])
    for a, b in zip(state['optimizer']['state'].values(), alone['optimizer']['state'].values()):
        a, b = a['momentum_buffer'], b['momentum_buffer']
        assert type(a) is torch.Tensor and a.shape == b.shape
        assert (a - b).norm() < 1e-4 * b.norm()
