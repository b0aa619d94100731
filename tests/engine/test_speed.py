"""The options for speed: what they switch on, and that the scores stay."""
import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import needs_compiler, run_tool
from mmengine.config import Config
from mmengine.model import BaseModel
from test_engine import toy_runner
from test_tools import ALL_TASKS, CLASSIFICATION, METRICS, small
from torch import nn

from dwnet import DWNet
from dwnet.commands.options.running import enable_bf16_training, enable_channels_last, enable_compile
from dwnet.engine import BFloat16OptimWrapper, CompileHook
from dwnet.engine.hooks.speed import BFloat16Hook
from dwnet.errors import UserError
from dwnet.models.layers import Mlp

NANO = dict(embed_dims=16, depths=(1, 1, 1, 1))


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = DWNet(NANO, out_indices=3)
        self.neck = nn.Conv2d(128, 4, 3)

    def forward(self, x, mode='tensor'):
        return self.backbone(x)[0]


def test_bf16_computes_in_bfloat16_and_keeps_the_weights_in_float32(device):
    model = Model().to(device)
    seen = []
    model.backbone.stages[0].blocks[0].mlp.fc1.register_forward_hook(lambda m, x, y: seen.append(y.dtype))
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=.1))
    with wrapper.optim_context(model):
        loss = model(torch.randn(2, 3, 32, 32, device=device)).float().square().mean()
    wrapper.update_params(loss)
    assert seen == [torch.bfloat16]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert not torch.is_autocast_enabled(device)


def test_channels_last_reaches_the_neck(tmp_path):
    cfg = Config(dict())
    enable_channels_last(cfg)
    model = toy_runner(tmp_path, model=Model(), cfg=cfg).model
    assert model.neck.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('maps', ['one', 'several'])
def test_bf16_hands_on_what_the_backbone_returns(maps, device):
    """A backbone of another toolbox may return one tensor: it is not taken for a tuple of its images."""
    model = Model().to(device).eval()
    if maps == 'one':
        model.backbone = nn.Sequential(nn.Conv2d(3, 4, 3))
    x = torch.randn(2, 3, 32, 32, device=device)
    with torch.no_grad():
        expected = model.backbone(x)
        BFloat16Hook().before_test(SimpleNamespace(model=model))
        y = model.backbone(x)
    assert type(y) is type(expected)
    for ours, theirs in zip(*((r, ) if maps == 'one' else r for r in (y, expected)), strict=True):
        assert ours.dtype == torch.float32 and ours.shape == theirs.shape
        assert 0 < (ours - theirs).norm() < .05 * theirs.norm()  # it was computed in bfloat16


def test_only_the_backbone_is_compiled(monkeypatch):
    monkeypatch.setattr(nn.Module, 'compile', lambda self: setattr(self, 'compiled', True))
    runner = SimpleNamespace(model=nn.Sequential(Model()))  # as in a wrapper
    CompileHook().before_run(runner)
    assert [name for name, m in runner.model.named_modules() if hasattr(m, 'compiled')] == ['0.backbone']


def test_a_compiled_model_can_be_copied_and_saved():
    """As for the moving average of the weights."""
    model = Model()
    names = list(model.state_dict())
    CompileHook().before_run(SimpleNamespace(model=model))
    assert list(copy.deepcopy(model).state_dict()) == list(model.state_dict()) == names


def test_bf16_takes_the_place_of_other_mixed_precision():
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')))
    enable_bf16_training(cfg)
    assert cfg.optim_wrapper == dict(type='BFloat16OptimWrapper')
    with pytest.raises(UserError, match='cannot be combined'):
        enable_bf16_training(Config(dict(optim_wrapper=dict(type='DeepSpeedOptimWrapper'))))


def test_compilation_needs_a_compiler(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UserError, match='no-such-compiler is missing'):
        enable_compile(Config(dict()))


def test_two_precisions_are_refused(small_digits, tmp_path):
    done = run_tool('tools/train.py', CLASSIFICATION, '--amp', '--bf16', '--work-dir', tmp_path,
                    *small(CLASSIFICATION, small_digits))
    assert done.returncode == 2 and 'choose one' in done.stderr


def run(tool: str, config: str, data: Path, folder: Path, *options) -> set[torch.dtype]:
    """Runs a tool; returns the dtypes in which the MLPs of the backbone computed."""
    seen: set[torch.dtype] = set()

    def watch(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(module, Mlp):
            seen.add(output.dtype)

    own = [*small(config, data), *(f'{part}_dataloader.{key}' for part in ('train', 'val', 'test')
                                   for key in ('num_workers=0', 'persistent_workers=False'))]
    handle = nn.modules.module.register_module_forward_hook(watch)
    try:
        done = run_tool(f'tools/{tool}.py', config, *options, '--work-dir', folder, *own,
                        f'experiment_name={folder.name}_{folder.parent.name}')
    finally:
        handle.remove()
    assert done.returncode == 0, done.stderr
    return seen


def scores_of(folder: Path) -> dict:
    return json.loads((folder / 'scores.json').read_text())


@pytest.mark.long
@ALL_TASKS
def test_training_and_testing_in_bf16(config, small_digits, tmp_path):
    half, full = {torch.bfloat16}, {torch.float32}
    checkpoint, options = tmp_path / 'train/epoch_1.pth', ('--bf16', '--channels-last')
    assert run('train', config, small_digits, tmp_path / 'train', *options) == half | full  # validated in full
    assert run('test', config, small_digits, tmp_path / 'plain', checkpoint) == full
    assert run('test', config, small_digits, tmp_path / 'fast', checkpoint, *options) == half
    plain, fast = scores_of(tmp_path / 'plain'), scores_of(tmp_path / 'fast')
    for key in METRICS[config]:
        points = 100 if key.startswith('coco') else 1  # AP is a fraction
        assert abs(fast[key] - plain[key]) * points < 5, key


@pytest.mark.long
@needs_compiler
@pytest.mark.parametrize('mixer', ['static', 'local_mlp'])
def test_compiled_once_for_all_sizes(mixer):
    """Images of growing sizes, as detectors have them."""
    model = DWNet(NANO, mixer, out_indices=(1, ), pad_to_window=True).eval()
    compiled = torch.compile(model, dynamic=True)
    for size in ((64, 96), (75, 61), (130, 97)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            for a, b in zip(model(x), compiled(x), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.long
@needs_compiler
@ALL_TASKS
def test_training_and_testing_compiled(config, small_digits, tmp_path):
    checkpoint, stats = tmp_path / 'train/epoch_1.pth', torch._dynamo.utils.counters['stats']
    for tool, name, options in (('train', 'train', ['--compile']), ('test', 'plain', [checkpoint]),
                                ('test', 'fast', [checkpoint, '--compile'])):
        before = stats['unique_graphs']
        run(tool, config, small_digits, tmp_path / name, *options)
        assert (stats['unique_graphs'] > before) == ('--compile' in options), name
    plain, fast = scores_of(tmp_path / 'plain'), scores_of(tmp_path / 'fast')
    for key in METRICS[config]:
        points = 100 if key.startswith('coco') else 1
        assert abs(fast[key] - plain[key]) * points < 1, key
