"""The timm entry points: the kinds of tests that timm has for its own models, which its wheel does not bring.

Each model runs in its own width and depth; base, which shares every line with tiny, in the long suite.
"""
import fnmatch

import pytest
import timm
import torch
from conftest import run_python
from reference import fill, image
from timm.data import resolve_model_data_config
from timm.models import create_feature_extractor, get_graph_node_names, group_parameters
from timm.models._hub import save_for_hf
from timm.optim import param_groups_layer_decay, param_groups_weight_decay

from dwnet import DWNet
from dwnet.apis import init_model
from dwnet.toolboxes.timm import MODELS

NAMES = ['dwnet_tiny', 'dwnet_base', 'dynamic_dwnet_tiny', 'dynamic_dwnet_base', 'i_dynamic_dwnet_tiny',
         'i_dynamic_dwnet_base', 'local_mlp_dwnet_tiny', 'local_mlp_dwnet_base']
NANO = dict(embed_dims=32, depths=(1, 1, 2, 1))
EACH = pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.long) if name.endswith('base') else name for name in NAMES])
# Everything that does not depend on depth and width, on a network of five blocks.
EACH_MIXER = pytest.mark.parametrize('name', NAMES[::2])


def nano(name: str, **kwargs):
    """A small model whose weights are not those of the initialisation: zeros and ones would hide mistakes."""
    model = timm.create_model(name, arch=NANO, **kwargs).eval()
    model.load_state_dict(fill({k: list(v.shape) for k, v in model.state_dict().items()}, seed=1))
    return model


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


@EACH
def test_inference(name):
    """Batch 1 in eval mode, at sizes that fit the patches and at sizes that do not."""
    model = timm.create_model(name).eval()
    with torch.no_grad():
        for size in ((96, 96), (61, 93)):
            logits = model(torch.randn(1, 3, *size))
            assert logits.shape == (1, 1000) and logits.isfinite().all()


@EACH
def test_backward_reaches_every_parameter(name):
    model = timm.create_model(name, num_classes=42).train()
    logits = model(torch.randn(2, 3, 64, 64))
    logits.mean().backward()
    assert logits.shape == (2, 42) and logits.isfinite().all()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@EACH
def test_default_cfg(name):
    """What the configuration says of the model is so."""
    model = timm.create_model(name).eval()
    names, cfg = set(model.state_dict()), model.default_cfg
    assert cfg['classifier'] + '.weight' in names and cfg['first_conv'] + '.weight' in names
    assert resolve_model_data_config(model) == dict(
        input_size=(3, 224, 224), interpolation='bicubic', mean=(.485, .456, .406), std=(.229, .224, .225),
        crop_pct=.875, crop_mode='center')
    x = torch.randn(1, *cfg['input_size'])
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.shape == (1, model.num_features, *cfg['pool_size'])
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (1, model.head_hidden_size)
        model.reset_classifier(0)
        assert torch.equal(model(x), pooled) and isinstance(model.get_classifier(), torch.nn.Identity)
        model.reset_classifier(0, '')
        assert torch.equal(model(x), features)
        model.reset_classifier(5, 'max')
        assert model(x).shape == (1, 5) and model.num_classes == 5


@EACH
@pytest.mark.parametrize('out_indices, channels', [
    ((0, 1, 2, 3), [1, 2, 4, 8]), ((-1, ), [8]), ((-3, -2), [2, 4]), ((1, ), [2])])
def test_features_only(name, out_indices, channels):
    if len(out_indices) < 4:  # nothing here depends on depth and width
        model = timm.create_model(name, arch=NANO, features_only=True, out_indices=out_indices).eval()
    else:
        model = timm.create_model(name, features_only=True).eval()
    width, info = model.feature_info.channels()[0] // channels[0], model.feature_info
    assert info.channels() == [width * c for c in channels] and info.reduction() == [4 * c for c in channels]
    assert info.module_name() == [f'stages.{c.bit_length() - 1}' for c in channels]
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 96, 75))
    assert [tuple(m.shape) for m in maps] == [
        (1, width * c, -(-96 // (4 * c)), -(-75 // (4 * c))) for c in channels]


@pytest.mark.parametrize('stride', [16, 8])
@pytest.mark.parametrize('name', ['dwnet_tiny', 'dynamic_dwnet_tiny'])
def test_output_stride(name, stride):
    """As timm's ResNets have it: finer late maps from the same weights."""
    maps = timm.create_model(name, arch=NANO, features_only=True, output_stride=stride).eval()
    maps.load_state_dict(timm.create_model(name, arch=NANO).state_dict())
    reduction = [min(2**(i + 2), stride) for i in range(4)]
    assert maps.feature_info.reduction() == reduction
    shapes = [tuple(m.shape[2:]) for m in maps(torch.rand(1, 3, 64, 90))]
    assert shapes == [(-(-64 // r), -(-90 // r)) for r in reduction]
    with pytest.raises(ValueError, match='static or dynamic'):
        timm.create_model('local_mlp_dwnet_tiny', arch=NANO, output_stride=stride)


@EACH_MIXER
def test_intermediates(name):
    model, x = nano(name), torch.randn(1, 3, 64, 50)
    with torch.no_grad():
        features, logits = model.forward_features(x), model(x)
        last, all_maps = model.forward_intermediates(x)
        assert torch.equal(last, features) and torch.equal(model.forward_head(last), logits)
        for indices, expected in (
                ([0, 2], (0, 2)), ([-1], (3, )), ([-4, -2], (0, 2)), (2, (2, 3)), (None, (0, 1, 2, 3))):
            maps = model.forward_intermediates(x, indices=indices, intermediates_only=True)
            assert len(maps) == len(expected) and all(torch.equal(a, all_maps[i]) for a, i in zip(maps, expected))
        assert not torch.equal(all_maps[3], features)  # without norm
        assert torch.equal(model.forward_intermediates(x, norm=True, intermediates_only=True)[3], features)
        with pytest.raises(ValueError, match='NCHW'):
            model.forward_intermediates(x, output_fmt='NLC')
        assert model.prune_intermediate_layers([0, 2]) == [0, 2]
        pruned = model.forward_intermediates(x, [0, 2], intermediates_only=True)
        assert all(torch.equal(a, all_maps[i]) for a, i in zip(pruned, (0, 2))) and len(model.stages) == 3
        assert model(x).shape[1] == model.num_features == 128


@EACH_MIXER
def test_fx(name):
    """timm's feature extraction by torch.fx, forward and backward."""
    model, x = nano(name, num_classes=5), torch.randn(2, 3, 64, 50)
    train_nodes, eval_nodes = get_graph_node_names(model)
    with torch.no_grad():
        extractor = create_feature_extractor(model, {'stages.2.blocks.1.mlp': 'block', eval_nodes[-1]: 'out'})
        parts = extractor(x)
        assert torch.equal(parts['out'], model(x)) and parts['block'].shape == (2, 128, 4, 4)
    graph = create_feature_extractor(model.train(), {train_nodes[-1]: 'out'})
    graph(x)['out'].mean().backward()
    assert [n for n, p in graph.named_parameters() if p.grad is None] == []


@EACH_MIXER
def test_images_of_other_channels(name):
    one = timm.create_model(name, arch=NANO, in_chans=1, num_classes=5).eval()
    assert one(torch.randn(1, 1, 64, 64)).shape == (1, 5)
    assert one.patch_embed.proj.weight.shape[1] == 1


@EACH
def test_pretrained_cfgs_name_the_official_files(name):
    """``pretrained=True`` fetches them; here from a file of the official names, for images of one channel, too."""
    cfg = timm.get_pretrained_cfg(name)
    official = name.startswith(('dwnet', 'dynamic'))
    assert bool(cfg.has_weights) == official and (not official or cfg.url.endswith(f'/{name}_224.pth'))
    assert (f'{name}.in1k' in timm.list_models(pretrained=True)) == official
    assert timm.is_model(name) and fnmatch.fnmatch(name, '*dwnet*')
    assert timm.models.model_entrypoint(name).__module__ == 'dwnet.toolboxes.timm'


@EACH_MIXER
def test_pretrained_from_a_file(name, tmp_path):
    model, x = nano(name, num_classes=5), torch.randn(1, 1, 64, 64)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    file = dict(file=str(tmp_path / 'weights.pth'), num_classes=5)
    grey = timm.create_model(name, arch=NANO, num_classes=3, in_chans=1, pretrained=True, pretrained_cfg_overlay=file)
    assert torch.allclose(grey.eval().forward_features(x), model.forward_features(x.expand(-1, 3, -1, -1)), atol=1e-3)
    maps = timm.create_model(name, arch=NANO, features_only=True, pretrained=True, pretrained_cfg_overlay=file).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(maps(x)[2], model.forward_intermediates(x, [2], intermediates_only=True)[0])


@EACH_MIXER
def test_a_folder_as_for_the_hub(name, tmp_path):
    """What ``push_to_hf_hub`` uploads, written and read without a network."""
    model, x = nano(name, num_classes=7), torch.randn(1, 3, 64, 50)
    save_for_hf(model, tmp_path, safe_serialization='both', model_args=dict(arch=NANO))
    assert {p.name for p in tmp_path.iterdir()} == {'config.json', 'model.safetensors', 'pytorch_model.bin'}
    (tmp_path / 'pytorch_model.bin').unlink()  # safetensors alone does
    again = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    assert again.num_classes == 7 and torch.equal(again(x), model(x))
    assert timm.create_model(f'local-dir:{tmp_path}', pretrained=True, num_classes=3).num_classes == 3
    (tmp_path / 'model.safetensors').write_bytes((tmp_path / 'model.safetensors').read_bytes()[:-100])
    with pytest.raises(Exception, match='[Ss]afetensor|incomplete|invalid'):
        timm.create_model(f'local-dir:{tmp_path}', pretrained=True)


@EACH_MIXER
def test_layer_wise_learning_rates(name):
    model = timm.create_model(name, arch=NANO)
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse))
        assert sum(map(len, groups.values())) == len(list(model.parameters()))
    groups = param_groups_layer_decay(model, layer_decay=.5, no_weight_decay_list=model.no_weight_decay())
    scale = {id(p): group['lr_scale'] for group in groups for p in group['params']}
    order = [model.patch_embed.proj, *(stage.blocks[0].mlp.fc1 for stage in model.stages), model.head.fc]
    scales = [scale[id(module.weight)] for module in order]
    assert len(scale) == len(list(model.parameters())) and scales == sorted(set(scales)) and scales[-1] == 1
    decayed = [g for g in param_groups_weight_decay(model, .05) if g['weight_decay']]
    assert all(p.ndim > 1 for g in decayed for p in g['params'])


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
