"""The timm entry points: timm's interfaces over the same backbone."""
import pytest
import timm
import torch
from conftest import run_python
from reference import fill, image

from dwnet import DWNet
from dwnet.apis import init_model
from dwnet.timm_models import MODELS

NAMES = ['dwnet_tiny', 'dwnet_base', 'dynamic_dwnet_tiny', 'dynamic_dwnet_base', 'i_dynamic_dwnet_tiny',
         'i_dynamic_dwnet_base', 'local_mlp_dwnet_tiny', 'local_mlp_dwnet_base']
NANO = dict(embed_dims=32, depths=(1, 1, 2, 1))


def test_registered_by_importing_dwnet():
    assert set(MODELS) == set(NAMES)
    code = 'import timm, dwnet; print(*timm.list_models("*dwnet*"))'
    assert set(run_python('-c', code).stdout.split()) == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_interfaces(name):
    model = timm.create_model(name, arch=NANO, num_classes=7).eval()
    assert model.num_features == model.head_hidden_size == 256 and model.num_classes == 7
    assert (model.pretrained_cfg['input_size'], model.pretrained_cfg['crop_pct']) == ((3, 224, 224), .875)
    x = torch.rand(2, 3, 64, 90)
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.shape == (2, 256, 2, 3)
        assert torch.equal(model(x), model.forward_head(features)) and model(x).shape == (2, 7)
        assert torch.allclose(model.forward_head(features, pre_logits=True), features.mean((2, 3)), atol=1e-6)
        last, maps = model.forward_intermediates(x, norm=True)
        assert torch.equal(last, features) and torch.equal(maps[-1], features)
        assert [tuple(m.shape[1:]) for m in maps] == [(32, 16, 23), (64, 8, 12), (128, 4, 6), (256, 2, 3)]
        assert torch.equal(model.forward_intermediates(x, [1], stop_early=True, intermediates_only=True)[0], maps[1])
        expected = model.forward_intermediates(x, intermediates_only=True)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3) and model.get_classifier().out_features == 3
    state = model.state_dict()
    extractor = timm.create_model(name, arch=NANO, features_only=True, out_indices=(0, 2)).eval()
    assert extractor.feature_info.channels() == [32, 128] and extractor.feature_info.reduction() == [4, 16]
    extractor.load_state_dict(state)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(extractor(x), (expected[0], expected[2])))
    assert not any(k.startswith(('model.stages.3', 'model.head', 'model.norms')) for k in extractor.state_dict())


@pytest.mark.parametrize('name', NAMES[::2])
def test_training_with_and_without_checkpointing(name):
    model = timm.create_model(name, arch=NANO, num_classes=5, in_chans=1, drop_path_rate=0.)
    x, gradients = torch.rand(3, 1, 64, 64), []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*gradients))


def test_group_matcher_names_every_parameter():
    from timm.models import group_parameters
    model = timm.create_model('dynamic_dwnet_tiny', arch=NANO)
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse))
        assert sum(map(len, groups.values())) == len(list(model.parameters()))


@pytest.mark.parametrize('name', ['dwnet_tiny', 'local_mlp_dwnet_tiny'])
def test_same_as_in_mmpretrain(name, tmp_path):
    """A file that an mmpretrain model of this project writes loads in timm, and the logits are the same."""
    model = init_model(f'configs/classification/{name.replace("_", "-")}_in1k.py')
    model.load_state_dict(fill({k: list(v.shape) for k, v in model.state_dict().items()}, seed=2))
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'own.pth')
    ours = timm.create_model(name, checkpoint_path=str(tmp_path / 'own.pth')).eval()
    x = image((1, 3, 96, 64), seed=2)
    with torch.no_grad():
        assert torch.allclose(ours(x), model(x, mode='tensor'), rtol=1e-4, atol=1e-5)
    torch.save(ours.state_dict(), tmp_path / 'timm.pth')
    again = init_model(f'configs/classification/{name.replace("_", "-")}_in1k.py', tmp_path / 'timm.pth').state_dict()
    assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())


def test_wrong_weights_are_a_runtime_error_as_in_torch():
    model = timm.create_model('dwnet_tiny', arch=NANO)
    with pytest.raises(RuntimeError, match='lacks .* head.fc.weight'):
        model.load_state_dict(DWNet(NANO, out_indices=3).state_dict())
