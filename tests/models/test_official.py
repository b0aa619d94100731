"""The network against the official code: its recorded outputs, and the second statement of it in oracle.py."""
import json
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from conftest import read_config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from reference import compare, fill, image
from torch import nn

from dwnet import DWNet
from dwnet.apis import init_model
from dwnet.checkpoint import convert_state_dict
from dwnet.weights.loading import load_pretrained

DATA = Path(__file__).parents[1] / 'data'
CASES = sorted(path.stem for path in DATA.glob('*.json'))
PARAMETERS = {
    'dwnet_tiny': 24_172_744,
    'dynamic_dwnet_tiny': 51_131_752,
    'i_dynamic_dwnet_tiny': 26_244_280,
    'local_mlp_dwnet_tiny': 24_274_450,
    'dwnet_base': 74_347_112,
    'dynamic_dwnet_base': 161_597_928,
    'i_dynamic_dwnet_base': 80_253_608,
    'local_mlp_dwnet_base': 74_624_224,
}
WITH_ORACLE = [name for name in PARAMETERS if 'mlp' not in name]  # no official local MLP exists
MIXERS = {'dwnet': 'static', 'dynamic_dwnet': 'dynamic', 'i_dynamic_dwnet': 'inhomogeneous'}


def config(kind: str, model: str) -> str:
    """The project's config of a model by its official name."""
    return {'classification': 'configs/classification/{}_in1k.py',
            'dense': 'configs/detection/cascade-mask-rcnn_{}_fpn_3x_coco.py',
            'segmentation': 'configs/segmentation/upernet_{}_160k_ade20k-512x512.py'}[kind].format(
                model.replace('_', '-'))


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameters_to_the_digit(name):
    with torch.device('meta'):
        model = MODELS.build(read_config(config('classification', name)).model)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize('case', CASES)
def test_agrees_with_the_official_code(case, device, tmp_path):
    arrays, case = np.load(DATA / f'{case}.npz'), json.loads((DATA / f'{case}.json').read_text())
    torch.save(dict(model=fill(case['state_dict'], case['seed'])), tmp_path / 'official.pth')
    x = image(case['input'], case['seed']).to(device)
    if case['task'] == 'dense':
        for kind in ('dense', 'segmentation'):
            backbone = MODELS.build(read_config(config(kind, case['model'])).model.backbone)
            load_pretrained(backbone, str(tmp_path / 'official.pth'))
            with torch.no_grad():
                maps = revert_sync_batchnorm(backbone).to(device).eval()(x)
            check(case, arrays, {f'feat{i}': y for i, y in enumerate(maps)})
    else:
        model = init_model(config('classification', case['model']), tmp_path / 'official.pth', device)
        with torch.no_grad():
            check(case, arrays, dict(logits=model(x, mode='tensor')))


def check(case: dict, arrays: dict, outputs: dict) -> None:
    errors = compare(case, arrays, outputs)
    assert set(errors) == set(case['outputs'])
    assert max(errors.values()) <= 2e-5, errors


@pytest.mark.parametrize('case', CASES)
def test_the_oracle_is_the_official_code(case):
    arrays, case = np.load(DATA / f'{case}.npz'), json.loads((DATA / f'{case}.json').read_text())
    assert oracle.layout(case['model'], case['task']) == case['state_dict']
    with torch.no_grad():
        weights, x = fill(case['state_dict'], case['seed']), image(case['input'], case['seed'])
        if case['task'] == 'dense':
            check(case, arrays, {f'feat{i}': y for i, y in enumerate(oracle.dense(weights, x))})
        else:
            check(case, arrays, dict(logits=oracle.classify(weights, x)))


def build(name: str, task: str, weights: dict) -> nn.Module:
    """Our network in float64 on official weights: a classifier's backbone with a ``head``, or a dense backbone."""
    arch, mixer = name.rpartition('_')[2], MIXERS[name.rpartition('_')[0]]
    if task == 'dense':
        model = DWNet(arch, mixer, out_norm_cfg=dict(type='BN'), pad_to_window=True)
    else:
        model = DWNet(arch, mixer, out_indices=3)
        model.head = nn.Module()
        model.head.fc = nn.Linear(model.channels[-1], 1000)
    model.load_state_dict({k.removeprefix('backbone.'): v for k, v in convert_state_dict(weights).items()})
    return model.double()


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    maps = model(x)
    return [model.head.fc(F.adaptive_avg_pool2d(maps[0], 1).flatten(1))] if hasattr(model, 'head') else list(maps)


def expected(task: str, weights: dict, x: torch.Tensor, training: bool = False) -> list[torch.Tensor]:
    return oracle.dense(weights, x, training) if task == 'dense' else [oracle.classify(weights, x, training)]


SIZES = {'classification': (96, 160), 'dense': (75, 122)}


@pytest.mark.parametrize('task', SIZES)
@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.long] * ('base' in name)) for name in WITH_ORACLE])
def test_outputs_of_every_model(name, task):
    weights = fill(oracle.layout(name, task), seed=5)
    model = build(name, task, weights).eval()
    x = image((1, 3, *SIZES[task]), seed=5).double()
    with torch.no_grad():
        for ours, theirs in zip(outputs(model, x), expected(task, {k: v.double() for k, v in weights.items()}, x)):
            assert ours.shape == theirs.shape
            assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()


@pytest.mark.parametrize('task', ['classification', pytest.param('dense', marks=pytest.mark.long)])
@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.long] * ('base' in name)) for name in WITH_ORACLE])
def test_training_step(name, task):
    """Outputs, every gradient and the running statistics of a step in training mode, in float64."""
    weights = fill(oracle.layout(name, task), seed=6)
    model = build(name, task, weights).train()
    x = image((3, 3, *SIZES[task]), seed=6).double()
    theirs = {k: v.double().requires_grad_('running' not in k) if v.is_floating_point() else v
              for k, v in weights.items()}
    ours_out, theirs_out = outputs(model, x), expected(task, theirs, x, training=True)
    targets = [torch.randn_like(y) for y in theirs_out]
    for ys in (ours_out, theirs_out):
        sum((y * target).sum() for y, target in zip(ys, targets)).backward()
    for a, b in zip(ours_out, theirs_out):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()

    gradients = {k.removeprefix('backbone.'): v for k, v in convert_state_dict(
        {k: v.grad for k, v in theirs.items() if v.requires_grad}).items()}
    largest = max(g.abs().max() for g in gradients.values())
    assert set(gradients) == {k for k, _ in model.named_parameters()}
    for key, parameter in model.named_parameters():  # some are zero: a bias in front of BatchNorm
        assert (parameter.grad - gradients[key]).abs().max() <= 1e-9 * largest, key
    buffers = {k.removeprefix('backbone.'): v for k, v in convert_state_dict(theirs).items()}
    for key, buffer in model.named_buffers():
        assert torch.allclose(buffer, buffers[key].to(buffer.dtype), rtol=1e-9, atol=1e-9), key
        assert not key.endswith('num_batches_tracked') or buffer == 8
