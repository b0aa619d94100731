"""``switch_to_deploy``: every BatchNorm folded, the outputs those of eval mode, in every model, task and tool."""
import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import read_config
from mmengine.hooks import EMAHook
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from dwnet import TOKEN_MIXERS, DWNet
from dwnet.apis import init_model, switch_to_deploy
from dwnet.engine import DeployHook
from dwnet.models.layers import Mlp, only_computes

DENSE = dict(out_norm_cfg=dict(type='BN'), pad_to_window=True)


def randomise_norms(model: nn.Module) -> None:
    """Statistics as after a training, and some negative scales."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, -.5, 1.5)
            nn.init.normal_(module.bias, std=.2)
            nn.init.normal_(module.running_mean, std=.2)
            nn.init.uniform_(module.running_var, .5, 1.5)


@pytest.mark.parametrize('dense', [False, True])
@pytest.mark.parametrize('mixer', TOKEN_MIXERS.module_dict)
@pytest.mark.parametrize('arch', ['tiny', pytest.param('base', marks=pytest.mark.long)])
def test_outputs_stay(arch, mixer, dense, device):
    model = DWNet(arch, mixer, **(DENSE if dense else {})).to(device).eval()
    randomise_norms(model)
    x = torch.randn(2, 3, 75, 122, device=device)
    with torch.no_grad():
        expected = model(x)
        deployed = copy.deepcopy(model)
        deployed.switch_to_deploy()
        for ours, theirs in zip(deployed(x), expected):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in deployed.modules())
    again = DWNet(arch, mixer, deploy=True, **(DENSE if dense else {})).to(device)
    again.load_state_dict(deployed.state_dict())
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again(x), deployed(x)))


def test_deployed_is_in_eval_mode_and_twice_is_once():
    model = DWNet(dict(embed_dims=16, depths=(1, 1, 1, 1)), 'dynamic')
    model.switch_to_deploy()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.switch_to_deploy()
    assert not model.training and all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_other_norms_are_left_alone():
    model = DWNet(dict(embed_dims=16, depths=(1, 1, 1, 1)), 'dynamic', norm_cfg=dict(type='GN', num_groups=2)).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)
        model.switch_to_deploy()
        for ours, theirs in zip(model(x), expected):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert sum(isinstance(m, nn.GroupNorm) for m in model.modules()) == 4 * 5


@pytest.mark.parametrize('config', [
    'configs/classification/dwnet-nano_digits.py', 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
    'configs/segmentation/upernet_dwnet-nano_digits.py'])
def test_whole_models(config, tmp_path):
    """Through the public function, and a deployed file loads into a config that says ``deploy=True``."""
    cfg = read_config(config)
    model = init_model(cfg)
    randomise_norms(model.backbone)
    deployed = copy.deepcopy(model)
    switch_to_deploy(deployed)
    x = torch.randn(1, 3, 70, 93)
    with torch.no_grad():
        for a, b in zip(deployed.backbone(x), model.backbone(x)):
            assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    torch.save(dict(state_dict=deployed.state_dict()), tmp_path / 'deployed.pth')
    cfg.model.backbone.deploy = True
    again = init_model(cfg, tmp_path / 'deployed.pth')
    assert all(torch.equal(v, deployed.state_dict()[k]) for k, v in again.state_dict().items())


def test_models_of_other_backbones_say_so():
    read_config('configs/classification/dwnet-nano_digits.py')
    with pytest.raises(ValueError, match='holds no DWNet'):
        switch_to_deploy(MODELS.build(dict(type='mmpretrain.ResNet', depth=18)))


def test_sync_bn_is_folded_too():
    model = DWNet(dict(embed_dims=16, depths=(1, 1, 1, 1)), norm_cfg=dict(type='SyncBN'))
    randomise_norms(model)
    plain = revert_sync_batchnorm(copy.deepcopy(model)).eval()
    model.switch_to_deploy()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(x)[-1], plain(x)[-1], atol=1e-5)


@pytest.mark.parametrize('mixer', ['static', 'dynamic', 'inhomogeneous'])
def test_half_precision_stays_half(mixer, device):
    """Under autocast the deployed maps are of the dtype of the undeployed ones."""
    model = DWNet(dict(embed_dims=32, depths=(1, 1, 1, 1)), mixer, **DENSE).to(device).eval()
    x = torch.randn(1, 3, 64, 64, device=device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        expected = model(x)
        model.switch_to_deploy()
        for ours, theirs in zip(model(x), expected):
            assert ours.dtype == theirs.dtype == torch.bfloat16
            assert (ours - theirs).norm() < .05 * theirs.norm()


def test_a_moving_average_is_folded_with_its_model():
    """The hook swaps averaged and trained weights tensor by tensor, so both models need the same tensors."""
    model = DWNet(dict(embed_dims=16, depths=(1, 1, 1, 1)))
    randomise_norms(model)
    average = EMAHook()
    runner = SimpleNamespace(model=model, hooks=[average], logger=SimpleNamespace(info=print))
    average.before_run(runner)
    with torch.no_grad():
        for parameter in average.ema_model.module.parameters():
            parameter.mul_(1.5)
    expected = copy.deepcopy(average.ema_model.module).eval()
    DeployHook().before_test(runner)
    average.before_test_epoch(runner)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(model(x), expected(x)):
            assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


class Wrapped(nn.Module):
    """As LoRA or a quantiser wraps a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.inputs = layer, []

    def forward(self, x):
        self.inputs.append(x)
        return self.layer(x)

    def __getattr__(self, name):  # PEFT's wrappers, too, show the layer's attributes
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.layer, name)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}


@pytest.mark.parametrize('watch', ['hooks', 'global hook', 'wrappers'])
@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('mixer', TOKEN_MIXERS.module_dict)
def test_every_layer_is_called(mixer, deploy, watch):
    """A hook on a layer, or a wrapper around the layer, sees the layer's input once, and the outputs stay."""
    model = DWNet(dict(embed_dims=32, depths=(1, 1, 1, 1)), mixer, **DENSE).eval()
    randomise_norms(model)
    if deploy:
        model.switch_to_deploy()
    x, seen = torch.randn(1, 3, 64, 64), []
    layers = layers_of(model)
    with torch.no_grad():
        expected = model(x)
        if watch == 'hooks':
            for name, layer in layers.items():
                layer.register_forward_pre_hook(lambda m, inputs, name=name: seen.append(name))
            outputs = model(x)
        elif watch == 'global hook':
            names = {layer: name for name, layer in layers.items()}
            handle = nn.modules.module.register_module_forward_pre_hook(
                lambda m, inputs: seen.append(names[m]) if m in names else None)
            try:
                outputs = model(x)
            finally:
                handle.remove()
        else:
            wrapped = {name: Wrapped(layer) for name, layer in layers.items()}
            for name, layer in wrapped.items():
                model.set_submodule(name, layer)
            outputs = model(x)
            seen = [name for name, layer in wrapped.items() for _ in layer.inputs]
    assert sorted(seen) == sorted(layers)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2


def test_what_more_than_computes():
    """No operator uses the weights of such a layer without calling the layer."""
    assert only_computes(nn.Linear(2, 3), nn.Linear)
    assert not only_computes(nn.Linear(2, 3), nn.Conv2d) and not only_computes(nn.LazyLinear(3), nn.Linear)
    for change in (lambda m: m.register_forward_hook(print), lambda m: m.register_forward_pre_hook(print),
                   lambda m: m.register_full_backward_hook(print), lambda m: m.register_full_backward_pre_hook(print),
                   lambda m: setattr(m, 'forward', m.forward), nn.utils.weight_norm,
                   lambda m: nn.utils.parametrize.register_parametrization(m, 'weight', Half())):
        layer = nn.Linear(2, 3)
        change(layer)
        assert not only_computes(layer, nn.Linear)


def test_what_hooks_keep_stays():
    """In inference GELU overwrites its input, unless a hook may have kept the input."""
    mlp, x, kept = Mlp(32, 4), torch.randn(1, 32, 5, 6), []
    with torch.no_grad():
        expected = mlp(x)
        mlp.fc1.register_forward_hook(lambda m, inputs, y: kept.append((y, y.clone())))
        assert torch.allclose(mlp(x), expected, atol=1e-6) and torch.equal(*kept[0])
        mlp.act = nn.ReLU()
        assert not torch.allclose(mlp(x), expected, atol=1e-3)
