"""A token mixer from outside the package, and other kernel sizes: in all tasks, saved, deployed, exported, in timm."""
import copy
import re

import pytest
import timm
import torch
from conftest import ROOT, read_config
from mmengine.registry import MODELS
from test_export import CLASSIFICATION, DETECTION, NANO, SEGMENTATION, SMALL, agree, randomise, run_onnx
from torch import nn

from dwnet import TOKEN_MIXERS, DWNet
from dwnet.apis import init_model
from dwnet.checkpoint import load_weights, read_checkpoint
from dwnet.deploy.export import export
from dwnet.errors import UserError
from dwnet.inspect.kernels import kernels
from dwnet.models import TokenMixer

# The example of the page, as a reader gets it.
EXAMPLE = re.search(r"write_text\('''(.+?)'''\)", (ROOT / 'docs/own_mixer.md').read_text(), re.DOTALL)[1]
VARIANTS = {
    'strips': dict(token_mixer='strips'),
    'strips 3': dict(token_mixer=dict(type='strips'), kernel_size=3),
    **{f'{name} 5': dict(token_mixer=name, kernel_size=5)
       for name in ('static', 'dynamic', 'inhomogeneous', 'local_mlp')},
}


@pytest.fixture(autouse=True)
def example():
    exec(compile(EXAMPLE, 'my_mixers', 'exec'), {'__name__': 'my_mixers'})
    yield
    TOKEN_MIXERS.module_dict.pop('strips')


@pytest.fixture(params=VARIANTS)
def variant(request) -> dict:
    return VARIANTS[request.param]


def in_config(config: str, variant: dict) -> nn.Module:
    cfg = read_config(config)
    cfg.model.backbone.update(copy.deepcopy(variant))
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('config', [CLASSIFICATION, DETECTION, SEGMENTATION])
def test_trains_saves_and_loads_strictly(config, variant, tmp_path):
    model = in_config(config, variant).train()
    maps = model.backbone(torch.randn(2, 3, 64, 96))
    sum((y * torch.randn_like(y)).sum() for y in maps).backward()
    unreached = [name for name, p in model.backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
    weights = read_checkpoint(tmp_path / 'weights.pth')['state_dict']
    again = in_config(config, variant)
    assert load_weights(again, weights, 'the file').keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values()))
    name = next(name for name in weights if '.mixer.' in name)
    with pytest.raises(UserError, match=re.escape(name)):  # of ours, too, nothing is left out in silence
        load_weights(again, {key: tensor for key, tensor in weights.items() if key != name}, 'the file')


@pytest.mark.parametrize('shape', [(2, 3, 64, 64), (1, 3, 75, 122)])
def test_deployed_it_computes_the_same(variant, shape):
    model, x = randomise(DWNet(NANO, **variant)), torch.randn(shape)
    with torch.no_grad():
        before = model(x)
        model.switch_to_deploy()
        assert agree(model(x), before)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize('variant', [
    pytest.param(VARIANTS[name], id=name, marks=[pytest.mark.long] * (name != 'strips')) for name in VARIANTS])
def test_in_onnx(variant, tmp_path):
    cfg = read_config(CLASSIFICATION)
    cfg.model.backbone.update(copy.deepcopy(variant), arch=SMALL)
    cfg.model.head.in_channels = 64
    model = init_model(cfg)
    model.backbone = randomise(model.backbone)
    path = export(model, tmp_path / 'backbone.onnx', backbone_only=True, images=[])
    images = torch.rand(2, 3, 70, 45) * 255
    with torch.no_grad():
        expected = model.backbone((images - model.data_preprocessor.mean) / model.data_preprocessor.std)
    assert agree(run_onnx(path, images), expected)


def test_in_timm(variant):
    model = timm.create_model('dwnet_tiny', arch=NANO, num_classes=5, **variant).eval()
    image = torch.randn(2, 3, 64, 64)
    assert model(image).shape == (2, 5)
    maps = timm.create_model('dwnet_tiny', arch=NANO, features_only=True, **variant)(image)
    assert [tuple(y.shape[1:]) for y in maps] == [(32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2)]


def test_its_kernels_are_drawn(variant):
    size = variant.get('kernel_size', 7)
    found = kernels(DWNet(NANO, **variant), torch.randn(2, 3, 64, 64))
    assert [y.shape[0] for y in found] == [2] * 4 and all(y.shape[-2:] == (size, size) or y.shape[2:4] == (size, size)
                                                         for y in found)


class Plain(TokenMixer):
    """Only what a mixer needs, behind a LayerNorm."""
    in_swin_block = True

    def __init__(self, dim: int, norm_cfg: dict, kernel_size: int, shifted: bool, gain: float = 1.) -> None:
        super().__init__()
        self.shifted, self.anything = shifted, nn.Parameter(torch.full((dim, 1, 1), gain))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.anything * x.roll(1 if self.shifted else -1, dims=-1)


def test_the_smallest_mixer_with_a_setting():
    """Given as a class, with what it says of itself: Swin's block, and every second one shifted."""
    model = DWNet(dict(embed_dims=8, depths=(2, 1, 1, 1)), token_mixer=dict(type=Plain, gain=.5))
    mixers = [block.mixer for stage in model.stages for block in stage.blocks]
    assert [m.shifted for m in mixers] == [False, True, False, False, False] and mixers[0].anything.eq(.5).all()
    assert model(torch.randn(1, 3, 32, 32))[-1].shape == (1, 64, 1, 1)
    with pytest.raises(UserError, match='Plain has no predict_kernel'):
        kernels(model, torch.randn(1, 3, 32, 32))


def test_positional_arguments_stay_in_their_places():
    """Scripts from before there was a kernel size still work."""
    model = DWNet(NANO, 'static', 1)
    assert model.patch_embed.proj.in_channels == 1 and model.stages[0].blocks[0].mixer.spatial.kernel_size == (7, 7)


@pytest.mark.parametrize('arguments, message', [
    (dict(token_mixer='strip'), "did you mean 'strips'?; import a mixer of your own first"),
    (dict(token_mixer=dict(dilation=2)), 'token_mixer must be one of'),
    (dict(token_mixer=dict(type=nn.Conv2d)), 'must be a subclass of dwnet.models.TokenMixer'),
    (dict(token_mixer='torch.nn.Conv2d'), 'must be a subclass of dwnet.models.TokenMixer'),
    (dict(kernel_size=4), 'kernel_size must be odd, got 4'),
    (dict(kernel_size=-1), 'kernel_size must be odd, got -1'),
])
def test_what_is_no_mixer(arguments, message):
    with pytest.raises(ValueError) as error:
        DWNet(NANO, **arguments)
    assert message in str(error.value)
