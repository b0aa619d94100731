"""Names, files and pre-trained backbones."""
import json
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from reference import fill
from safetensors.torch import save_file

from dwnet import DWNet
from dwnet.checkpoint import convert_state_dict, load_weights, write_clean
from dwnet.errors import UserError
from dwnet.weights.loading import load_pretrained, read_state_dict

DATA = Path(__file__).parents[1] / 'data'
NANO = dict(embed_dims=8, depths=(1, 1, 1, 1))


def official(case: str) -> dict:
    case = json.loads((DATA / f'{case}.json').read_text())
    return fill(case['state_dict'], case['seed'])


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('mixer', ['', 'dynamic_'])
def test_every_layout_is_converted(mixer):
    own = DWNet('tiny', mixer.rstrip('_') or 'static', out_norm_cfg=dict(type='BN')).state_dict()
    dense = convert_state_dict(official(f'{mixer}dwnet_tiny_dense'))
    assert {k: v.shape for k, v in dense.items()} == {k: v.shape for k, v in own.items()}
    assert same(convert_state_dict(dense), dense)
    detector = {f'backbone.{k}': v for k, v in official(f'{mixer}dwnet_tiny_dense').items()}
    detector['neck.x.weight'] = torch.ones(1)
    converted = convert_state_dict(detector)
    expected = {**{f'backbone.{k}': v for k, v in dense.items()}, 'neck.x.weight': torch.ones(1)}
    assert same(converted, expected) and same(convert_state_dict(converted), converted)
    classifier = convert_state_dict(official(f'{mixer}dwnet_tiny_classification'))
    assert {k for k in classifier if not k.startswith('backbone.')} == {'head.fc.weight', 'head.fc.bias'}
    assert same(convert_state_dict(classifier), classifier)


def test_unknown_keys_are_listed():
    weights = official('dwnet_tiny_dense')
    weights['layers.0.blocks.0.attn.qkv.weight'] = weights['surprise'] = torch.ones(1)
    with pytest.raises(KeyError) as error:
        convert_state_dict(weights)
    assert 'layers.0.blocks.0.attn.qkv.weight, surprise' in str(error.value)


def save(tmp_path, content) -> str:
    torch.save(content, tmp_path / 'weights.pth')
    return str(tmp_path / 'weights.pth')


@pytest.mark.parametrize('wrap', [
    lambda w: w,
    lambda w: dict(state_dict=w),
    lambda w: dict(model={f'module.{k}': v for k, v in w.items()}, epoch=3, optimizer=dict(lr=.1)),
    lambda w: dict(model_state_dict=w, optimizer_state_dict=dict(lr=.1), loss=.5),
    lambda w: {f'_orig_mod.{k}': v for k, v in w.items()},
    lambda w: dict(model_state_dict={f'module._orig_mod.{k}': v for k, v in w.items()}),
    lambda w: dict(state_dict={f'_orig_mod.module.{k}': v for k, v in w.items()}),
    lambda w: {f'backbone._orig_mod.{k}': v for k, v in w.items() if 'head' not in k},
], ids=['bare', 'state_dict', 'model', 'model_state_dict', 'compiled', 'compiled in DDP', 'DDP in compiled',
        'compiled part'])
def test_official_classifier_starts_a_dense_backbone(tmp_path, wrap):
    weights = official('dynamic_dwnet_tiny_classification')
    path = save(tmp_path, wrap(weights))
    model = DWNet('tiny', 'dynamic', out_norm_cfg=dict(type='BN'),
                  init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    state = model.state_dict()
    expected = convert_state_dict(weights)
    for key, tensor in state.items():
        if not key.startswith('norms.'):
            assert torch.equal(tensor, expected[f'backbone.{key}']), key
    assert (model.norms['bn3'].weight == 1).all(), "the classifier's LayerNorm is not the BatchNorm's"


def test_pickled_yacs_settings_are_read_as_data(tmp_path):
    import sys
    from types import ModuleType

    module = ModuleType('yacs.config')

    class CfgNode(OrderedDict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    module.CfgNode = CfgNode
    sys.modules['yacs'], sys.modules['yacs.config'] = ModuleType('yacs'), module
    try:
        path = save(tmp_path, dict(model=DWNet(NANO).state_dict(), config=CfgNode(lr=.1)))
    finally:
        del sys.modules['yacs'], sys.modules['yacs.config']
    load_pretrained(DWNet(NANO), path)


def test_what_does_not_fit_is_an_error_and_loads_nothing(tmp_path):
    weights = DWNet(NANO).state_dict()
    model = DWNet(NANO)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lacking = dict(weights)
    lacking.pop('stages.1.blocks.0.mixer.proj_in.weight')
    misshapen = {**weights, 'patch_embed.proj.bias': torch.ones(3)}
    for content, message in ((lacking, 'lacks 1 of'), (misshapen, r'patch_embed.proj.bias \(3,\) for \(8,\)'),
                             ({'a': torch.ones(1)}, 'it has 1 beyond the model: a;')):
        with pytest.raises(UserError, match=message):
            load_pretrained(model, save(tmp_path, content))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_static_weights_do_not_pass_for_dynamic_ones(tmp_path):
    path = save(tmp_path, DWNet(NANO).state_dict())
    with pytest.raises(UserError, match='check arch, token_mixer'):
        load_pretrained(DWNet(NANO, 'dynamic'), path)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match='missing'):
        read_state_dict(str(tmp_path / 'nothing.pth'))
    path = Path(save(tmp_path, DWNet(NANO).state_dict()))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match='damaged'):
        read_state_dict(str(path))


def test_a_flipped_bit_is_found(tmp_path):
    """PyTorch and safetensors read over it."""
    path = Path(save(tmp_path, {'norm.weight': torch.ones(1000)}))
    content = bytearray(path.read_bytes())
    content[content.find(torch.ones(9).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    assert (torch.load(path)['norm.weight'] != 1).sum() == 1
    with pytest.raises(UserError, match='the checksum of its entry .*data/0 is wrong'):
        read_state_dict(str(path))
    torch.save(DWNet(NANO).state_dict(), path)
    clean = write_clean(path, tmp_path / 'clean.safetensors')
    whole = clean.read_bytes()
    for place in (-1, whole.find(b'mlp.fc1'), whole.find(b'"sha256": "') + 12):
        content = bytearray(whole)
        content[place] ^= 1
        clean.write_bytes(content)
        for name in (clean.name, 'own-name.safetensors'):  # which it is called does not matter
            with pytest.raises(UserError, match='its SHA-256 differs from the one in its header'):
                read_state_dict(str(clean.rename(tmp_path / name)))
            clean = tmp_path / name


@pytest.mark.parametrize('name', ['model-20250103', 'model-deadbeef', 'model-cafe1234', 'model'])
@pytest.mark.parametrize('write', [write_clean, lambda source, target: save_file(torch.load(source), target)],
                         ids=['ours', 'theirs'])
def test_a_name_is_no_hash(name, write, tmp_path):
    """A date, a word or the number of a commit may stand where OpenMMLab puts a hash."""
    weights = DWNet(NANO).state_dict()
    path = tmp_path / f'{name}.safetensors'
    written = write(save(tmp_path, weights), path)
    read = read_state_dict(str(written.rename(path) if written else path))
    assert read.keys() == weights.keys() and all(torch.equal(read[key], weights[key]) for key in weights)


def test_a_zip_file_that_unpacks_to_more_is_refused(tmp_path):
    path = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('bomb/data.pkl', bytes(2**20))
    with pytest.raises(UserError, match='it claims to hold more bytes than it has'):
        read_state_dict(str(path))


def test_files_from_before_zip_are_read(tmp_path):
    weights = DWNet(NANO).state_dict()
    torch.save(weights, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert same(read_state_dict(str(tmp_path / 'old.pth')), weights)


@pytest.mark.parametrize('tensor, message', [
    (torch.ones(1).expand(2**40), 'the file holds less data than these tensors need: patch_embed.proj.bias'),
    (torch.ones(8, device='meta'), 'it calls torch._utils._rebuild_meta_tensor_no_storage'),
    (torch.ones(8).to_sparse(), 'it calls torch._utils._rebuild_sparse_tensor'),
    (torch.ones(8, dtype=torch.int64), r'another kind: patch_embed.proj.bias torch.int64 for torch.float32'),
    (torch.ones(8, dtype=torch.complex64), 'another kind')])
def test_tensors_of_another_kind_are_refused(tensor, message, tmp_path):
    model = DWNet(NANO)
    path = save(tmp_path, {**model.state_dict(), 'patch_embed.proj.bias': tensor})
    with pytest.raises(UserError, match=message):
        load_weights(model, read_state_dict(path), path)


def test_other_widths_are_loaded(tmp_path):
    model = DWNet(NANO)
    path = save(tmp_path, {k: v.double() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    load_weights(model, read_state_dict(path), path)


def test_messages_stay_one_line(tmp_path):
    path = save(tmp_path, {'a\n\x1b[31m' * 1000: 1})
    with pytest.raises(UserError) as error:
        read_state_dict(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 5000


@pytest.mark.parametrize('content, message', [
    ([1, 2], 'holds a list, not a mapping of names to weights'), ({'a': 1}, 'a are no names of tensors'),
    ({3: torch.ones(1)}, '3 are no names of tensors')])
def test_what_is_no_weights_is_said_so(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_state_dict(save(tmp_path, content))


def test_unreadable_file_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr('dwnet.weights.loading.CheckpointLoader.load_checkpoint',
                        lambda *_, **__: (_ for _ in ()).throw(EOFError()))
    with pytest.raises(UserError, match='damaged'):
        read_state_dict(str(tmp_path))


def test_unreachable_address_says_what_to_do():
    with pytest.raises(UserError, match='cannot be fetched.*init_cfg.checkpoint=FILE'):
        read_state_dict('http://127.0.0.1:9/weights.pth')
