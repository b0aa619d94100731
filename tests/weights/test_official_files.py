"""Files of the official layout, loaded as they are in every way that exists; altered ones are errors."""
import copy
import os
import runpy
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import oracle
import pytest
import timm
import torch
from conftest import read_config
from mmengine.registry import MODELS
from reference import fill

from dwnet import DWNet
from dwnet.apis import init_model
from dwnet.checkpoint import convert_state_dict, load_weights, write_clean
from dwnet.engine import Runner
from dwnet.errors import UserError

CONFIGS = {
    'classification': 'configs/classification/dwnet-nano_digits.py',
    'detection': 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
    'segmentation': 'configs/segmentation/upernet_dwnet-nano_digits.py',
}
KINDS = list(CONFIGS)
NANO = dict(embed_dims=32, depths=(1, 1, 2, 1))


def official_weights(kind: str) -> dict[str, torch.Tensor]:
    """The weights of the digits model of a task, by official names."""
    weights = fill(oracle.layout('dwnet_nano', 'classification' if kind == 'classification' else 'dense'), seed=3)
    if kind == 'classification':
        return {**weights, 'head.weight': weights['head.weight'][:10], 'head.bias': weights['head.bias'][:10]}
    torch.manual_seed(0)
    model = MODELS.build(read_config(CONFIGS[kind]).model)
    heads = {k: v for k, v in model.state_dict().items() if not k.startswith('backbone.')}
    return {f'backbone.{k}': v for k, v in weights.items()} | heads


class CfgNode(OrderedDict):
    """Is pickled under the name of yacs' configuration node; yacs itself is not needed."""


CfgNode.__module__ = 'yacs.config'


@contextmanager
def yacs_importable() -> Iterator[None]:
    module = ModuleType('yacs.config')
    module.CfgNode = CfgNode
    sys.modules |= {'yacs': ModuleType('yacs'), 'yacs.config': module}
    yield
    del sys.modules['yacs'], sys.modules['yacs.config']


def official_file(tmp_path, kind: str, weights: dict | None = None) -> str:
    """All that the official training scripts leave beside the weights."""
    weights = official_weights(kind) if weights is None else weights
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    path = tmp_path / f'{kind}.pth'
    if kind == 'classification':
        content = dict(model=weights, optimizer=optimizer.state_dict(), epoch=299, max_accuracy=81.2,
                       lr_scheduler=dict(t_in_epochs=False, base_values=[1e-3]),
                       config=CfgNode(AMP='O1', MODEL=CfgNode(NAME='dwnet_tiny')))
    else:
        content = dict(meta=dict(epoch=36, iter=9, CLASSES=('0', '1'), config='import os', mmdet_version='2.11.0'),
                       state_dict=OrderedDict((f'module.{k}', v) for k, v in weights.items()),
                       optimizer=optimizer.state_dict())
    with yacs_importable():
        torch.save(content, path)
    return str(path)


def by_init_cfg(kind: str, path: str, *_):
    cfg = read_config(CONFIGS[kind])
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    return backbone


def by_load_from(kind: str, path: str, tmp_path, with_hook: bool = False, with_runner: bool = False, **changes):
    cfg = read_config(CONFIGS[kind])
    cfg.merge_from_dict(changes)
    for part in ('train', 'val', 'test'):  # no data is needed to load
        for setting in (f'{part}_dataloader', f'{part}_evaluator', f'{part}_cfg', 'optim_wrapper', 'param_scheduler',
                        'auto_scale_lr'):
            cfg.pop(setting, None)
    cfg.update(work_dir=str(tmp_path / 'work'), load_from=path, experiment_name=f'{kind}{id(cfg)}')
    runner = Runner.from_cfg(cfg)
    if with_hook:
        runner.call_hook('before_run')
    runner.load_or_resume()
    if with_runner:
        return runner.model, runner
    return (runner.model, next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')) if with_hook else runner.model


def by_init_model(kind: str, path: str, *_):
    return init_model(CONFIGS[kind], path)


def by_timm(kind: str, path: str, *_):
    if kind == 'classification':
        return timm.create_model('dwnet_tiny', arch=NANO, num_classes=10, checkpoint_path=path)
    return timm.create_model('dwnet_tiny', arch=NANO, features_only=True, checkpoint_path=path).model


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What loading says."""
    messages: list[str] = []
    monkeypatch.setattr('dwnet.weights.loading.print_log', lambda message, *_: messages.append(message))
    return messages


WAYS = [by_init_cfg, by_load_from, by_init_model, by_timm]
every_way = pytest.mark.parametrize('way', WAYS)
every_kind = pytest.mark.parametrize('kind', KINDS)


@every_way
@every_kind
def test_loads_as_it_is(kind, way, tmp_path, log):
    model = way(kind, official_file(tmp_path, kind), tmp_path)
    converted = convert_state_dict(official_weights(kind))
    state = model.state_dict()
    nested = any(k.startswith('backbone.') for k in state)
    for key, tensor in state.items():
        if way is by_timm and kind == 'classification':
            official = key if key.startswith('head.') else f'backbone.{key}'
        else:
            official = key if nested else f'backbone.{key}'
        assert torch.equal(tensor, converted[official]), key
    backbone = sum(1 for k in state if not nested and not k.startswith('head.') or k.startswith('backbone.'))
    assert f'loaded {backbone} of {backbone} backbone tensors' in log[-1]


WRAPPERS = {
    'compiled': lambda weights: dict(model={f'_orig_mod.{k}': v for k, v in weights.items()}),
    'compiled in DDP': lambda weights: {f'module._orig_mod.{k}': v for k, v in weights.items()},
    'model_state_dict': lambda weights: dict(model_state_dict=weights, optimizer_state_dict=dict(lr=.1)),
    'raw beside averages': lambda weights: dict(
        state_dict=weights, model_ema_v2={k: torch.zeros_like(v) for k, v in weights.items()})}


@every_way
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_checkpoints_of_other_habits(wrapper, way, tmp_path):
    torch.save(dict(WRAPPERS[wrapper](official_weights('classification'))), tmp_path / 'w.pth')
    state = way('classification', str(tmp_path / 'w.pth'), tmp_path).state_dict()
    key = next(key for key in state if key.endswith('stages.1.blocks.0.mixer.proj_in.weight'))
    assert torch.equal(state[key], official_weights('classification')['layers.1.blocks.0.attn2conv.conv0.weight'])


def test_a_checkpoint_of_other_habits_is_as_strict(tmp_path):
    weights = official_weights('classification')
    del weights['layers.0.blocks.0.mlp.fc1.weight']
    torch.save(dict(model_state_dict={f'_orig_mod.{k}': v for k, v in weights.items()}), tmp_path / 'w.pth')
    for way in WAYS:
        with pytest.raises((UserError, RuntimeError), match='lacks 1 of .*mlp.fc1.weight'):
            way('classification', str(tmp_path / 'w.pth'), tmp_path)


@every_kind
def test_tool_scores_it(kind, small_digits, tmp_path, monkeypatch):
    """``tools/test.py CONFIG OFFICIAL_FILE``."""
    scores, official = [], official_file(tmp_path, kind)
    for path in (official, str(write_clean(official, tmp_path / 'clean.safetensors'))):
        work_dir = tmp_path / f'work{len(scores)}'
        settings = [f'test_dataloader.dataset.data_root={small_digits}', 'test_dataloader.num_workers=0',
                    'test_dataloader.persistent_workers=False', f'experiment_name=official{kind}{len(scores)}']
        if kind == 'detection':
            settings.append(f'test_evaluator.ann_file={small_digits}/annotations/test.json')
        monkeypatch.setattr(sys, 'argv', ['test.py', CONFIGS[kind], path, '--work-dir', str(work_dir), '--cfg-options',
                                          *settings])
        runpy.run_path('tools/test.py', run_name='__main__')
        scores.append((work_dir / 'scores.json').read_text())
    assert scores[0] == scores[1]


# What is changed → a key of each kind of file
ALTERED = {
    'backbone': dict(classification='layers.1.blocks.0.attn2conv.conv0.weight',
                     detection='backbone.layers.1.blocks.0.attn2conv.conv.weight',
                     segmentation='backbone.layers.2.downsample.reduction.weight'),
    'norm': dict(classification='norm.bias', detection='backbone.norm2.running_var',
                 segmentation='backbone.norm0.weight'),
    'head': dict(classification='head.weight', detection='roi_head.bbox_head.1.fc_cls.bias',
                 segmentation='decode_head.conv_seg.weight'),
}


def takes(way, kind: str, part: str) -> bool:
    """A backbone takes no heads, and timm's features take no norms."""
    if way is by_timm and kind != 'classification':
        return part == 'backbone'
    return part != 'head' or way is not by_init_cfg


@pytest.mark.parametrize('how', ['renamed', 'removed', 'reshaped'])
@pytest.mark.parametrize('kind, way, part', [
    pytest.param(kind, way, part, marks=[pytest.mark.long] * (kind == 'segmentation'))
    for kind in KINDS for way in WAYS for part in ALTERED if takes(way, kind, part)])
def test_an_altered_key_is_named(kind, way, part, how, tmp_path):
    weights, key = official_weights(kind), ALTERED[part][kind]
    tensor = weights.pop(key)
    if how == 'renamed':
        weights[f'{key}s'] = tensor
    elif how == 'reshaped':
        weights[key] = torch.ones(*tensor.shape, 2)
    path = official_file(tmp_path, kind, weights)
    with pytest.raises((UserError, RuntimeError)) as error:
        way(kind, path, tmp_path)
    message = str(error.value)
    assert key.removeprefix('backbone.') in message and '\n' not in message, message


def test_new_heads_only_when_asked_for(tmp_path, log):
    path = official_file(tmp_path, 'classification')
    other = {'model.head.num_classes': 7, 'model.data_preprocessor.num_classes': 7}
    with pytest.raises(UserError, match=r'head.weight \(10, 256\) for \(7, 256\)'):
        by_load_from('classification', path, tmp_path, **other)
    model = by_load_from('classification', path, tmp_path, new_heads=True, **other)
    assert model.head.fc.weight.shape == (7, 256)
    assert 'and 0 of 2 other tensors' in log[-1] and 'new: head.fc' in log[-1]
    with pytest.raises(UserError, match='layers.0.blocks.0.mlp.fc1.bias'):  # a backbone is never new
        weights = {**official_weights('classification'), 'layers.0.blocks.0.mlp.fc1.bias': torch.ones(2)}
        by_load_from('classification', official_file(tmp_path, 'classification', weights), tmp_path, new_heads=True)


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}', )


@every_way
def test_a_file_that_calls_os_system_is_refused(way, tmp_path):
    weights = official_weights('classification')
    marker = tmp_path / 'ran'
    torch.save(dict(model=weights, config=Hostile(marker)), tmp_path / 'hostile.pth')
    with pytest.raises(Exception, match='weights_only|posix.system|not loaded'):
        way('classification', str(tmp_path / 'hostile.pth'), tmp_path)
    assert not marker.exists()
    with pytest.raises(UserError, match='not loaded'):
        write_clean(str(tmp_path / 'hostile.pth'), str(tmp_path / 'clean.pth'))
    assert not marker.exists()


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@every_kind
def test_clean_file(kind, suffix, tmp_path):
    source = official_file(tmp_path, kind)
    path = write_clean(source, tmp_path / f'model{suffix}')
    assert path.name.startswith('model-') and len(path.name) == len(f'model-01234567{suffix}')
    assert path == write_clean(source, tmp_path / f'model{suffix}'), 'the same content has the same name'
    assert path.stat().st_size < os.path.getsize(source)
    states = [by_load_from(kind, p, tmp_path).state_dict() for p in (source, str(path))]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states)))
    assert not list(tmp_path.glob('.*')), 'nothing unfinished is left'


def test_clean_file_needs_a_known_suffix(tmp_path):
    with pytest.raises(UserError, match='.pth or .safetensors'):
        write_clean(official_file(tmp_path, 'classification'), tmp_path / 'model.bin')


def test_clean_file_needs_a_place(tmp_path):
    source = official_file(tmp_path, 'classification')
    with pytest.raises(UserError, match=r'model-[0-9a-f]{8}.pth cannot be written'):
        write_clean(source, f'{source}/model.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['classification.pth']


def test_any_loader_takes_an_official_detector(tmp_path):
    """The Runner of a toolbox itself calls mmengine's loader, which knows nothing of official names."""
    from mmengine.runner import load_checkpoint
    model = MODELS.build(read_config(CONFIGS['detection']).model)
    load_checkpoint(model, official_file(tmp_path, 'detection'), strict=True, logger='silent')
    converted = convert_state_dict(official_weights('detection'))
    assert all(torch.equal(v, converted[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('kind', ['classification', 'detection'])
def test_a_norm_that_is_wholly_missing_is_an_error(kind, tmp_path):
    """A part of the file's own kind of norms; norms of another kind may be new."""
    weights = official_weights(kind)
    prefix = 'norm.' if kind == 'classification' else 'backbone.norm2.'
    weights = {k: v for k, v in weights.items() if not k.startswith(prefix)}
    if kind == 'classification':  # no norm at all is no classifier's file
        with pytest.raises(UserError, match='norms.ln3.weight'):
            by_load_from(kind, official_file(tmp_path, kind, weights), tmp_path)
    with pytest.raises(UserError, match='norms.ln3.weight|norms.bn2.weight'):
        by_init_cfg(kind, official_file(tmp_path, kind, weights))


@every_kind
def test_hooks_get_what_was_loaded(kind, tmp_path):
    """EMA loads the checkpoint itself, and a test uses EMA's weights."""
    path = official_file(tmp_path, kind)
    model, hook = by_load_from(kind, path, tmp_path, with_hook=True, custom_hooks=[dict(type='EMAHook')])
    averaged = hook.ema_model.module.state_dict()
    converted = convert_state_dict(official_weights(kind))
    assert all(torch.equal(v, converted[k]) for k, v in averaged.items())
    assert all(torch.equal(v, converted[k]) for k, v in model.state_dict().items())


def test_a_model_in_two_wrappers(tmp_path):
    """``dist_test.sh --tta``: DistributedDataParallel around the model of the views around the model."""
    from mmengine.model import BaseTTAModel
    from mmengine.registry import MODEL_WRAPPERS

    class Views(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            raise NotImplementedError

    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    MODEL_WRAPPERS.register_module(module=Wrapper, name='TwoWrappersTest')
    model, runner = by_load_from('segmentation', official_file(tmp_path, 'segmentation'), tmp_path, with_runner=True)
    for p in model.parameters():
        p.data.zero_()
    runner.model = Wrapper(Views(model))
    runner.load_checkpoint(official_file(tmp_path, 'segmentation'))
    converted = convert_state_dict(official_weights('segmentation'))
    assert all(torch.equal(v, converted[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('backbone', [
    dict(type='mmdet.SwinTransformer', embed_dims=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)),
    dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1] * 4, channels=[8] * 4), out_indices=(0, 1, 2, 3)),
    dict(type='mmpretrain.ResNet', depth=18)], ids=lambda b: b['type'])
def test_other_models_keep_their_names(backbone, tmp_path):
    """Swin and ConvNeXt have a ``norm0`` to ``norm3``, too."""
    import mmdet.models  # noqa: F401
    import mmpretrain.models  # noqa: F401

    def build():
        return torch.nn.ModuleDict(dict(backbone=MODELS.build(copy.deepcopy(backbone))))

    model, other = build(), build()
    loaded = load_weights(other, model.state_dict(), 'file')
    assert list(loaded) == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))


def test_timm_pretrained_is_strict_about_the_backbone(tmp_path):
    def create(name, weights, **arguments):
        torch.save(dict(model=weights), tmp_path / 'download.pth')
        return timm.create_model(name, pretrained=True, arch=NANO,
                                 pretrained_cfg_overlay=dict(file=str(tmp_path / 'download.pth'), num_classes=10),
                                 **arguments)

    weights = official_weights('classification')
    for arguments in (dict(num_classes=10), dict(num_classes=7), dict(features_only=True),
                      dict(num_classes=10, in_chans=1)):
        state = create('dwnet_tiny', weights, **arguments).state_dict()
        key = ('model.' if 'features_only' in arguments else '') + 'stages.1.blocks.0.mixer.proj_in.weight'
        assert torch.equal(state[key], weights['layers.1.blocks.0.attn2conv.conv0.weight'])
        with pytest.raises(RuntimeError, match='spatial.squeeze'):
            create('dynamic_dwnet_tiny', weights, **arguments)
        lacking = {k: v for k, v in weights.items() if k != 'layers.0.blocks.0.mlp.fc1.weight'}
        with pytest.raises(RuntimeError, match='mlp.fc1.weight'):
            create('dwnet_tiny', lacking, **arguments)


def test_timm_reads_what_official_files_hold_for_our_models_alone(tmp_path):
    """Their settings are a yacs node, which timm refuses for every other model."""
    path, own = official_file(tmp_path, 'classification'), dict(arch=NANO, num_classes=10)
    key, weights = 'stages.1.blocks.0.mixer.proj_in.weight', official_weights('classification')
    given = weights['layers.1.blocks.0.attn2conv.conv0.weight']
    fetched = timm.create_model('dwnet_tiny', pretrained=True, pretrained_cfg_overlay=dict(file=path, num_classes=10),
                                **own)
    later = timm.create_model('dwnet_tiny', **own)
    timm.models.load_checkpoint(later, path)
    assert torch.equal(fetched.state_dict()[key], given) and torch.equal(later.state_dict()[key], given)
    with pytest.raises(RuntimeError, match='yacs.config.CfgNode'):
        timm.create_model('resnet18', checkpoint_path=path)


def test_clean_file_of_views_and_shared_tensors(tmp_path):
    weights = {k: v.clone() for k, v in official_weights('detection').items()}
    big = torch.zeros(50_000_000)
    shared = big[:5].copy_(torch.arange(5.))
    weights |= {'x.a': shared, 'x.b': shared}
    meta = dict(dataset_meta=dict(classes=('a', 'b')), secret=1)
    torch.save(dict(state_dict=weights, meta=meta), tmp_path / 'in.pth')
    for suffix in ('.safetensors', '.pth'):
        path = write_clean(tmp_path / 'in.pth', tmp_path / f'out{suffix}')
        assert path.stat().st_size < 60_000_000
    assert torch.load(path)['meta'] == dict(dataset_meta=dict(classes=('a', 'b')))


def test_nothing_is_dropped_where_two_keys_meet(tmp_path):
    weights = official_weights('classification')
    with pytest.raises(UserError, match="head.bias twice, with and without 'module.'"):
        by_init_model('classification', official_file(tmp_path, 'classification', {
            **weights, 'module.head.bias': torch.ones(10)}))
    backbone = DWNet(NANO, out_norm_cfg=None)
    own = backbone.state_dict()
    with pytest.raises(UserError, match='twice|beyond'):
        load_weights(backbone, {**{f'backbone.{k}': v for k, v in own.items()}, **own}, 'file')
    with pytest.raises(UserError, match='patch_embed.proj.bias'):
        load_weights(backbone, {**own, 'patch_embed.proj.bias': torch.ones(3)}, 'file', new_heads=True)
    with pytest.raises(KeyError, match='blocks.0.nonsense'):
        convert_state_dict({**own, 'stages.0.blocks.0.nonsense': torch.ones(1)})
    # below a mixer any name may be right: the model tells
    with pytest.raises(UserError, match='1 beyond the model: stages.0.blocks.0.mixer.nonsense'):
        load_weights(backbone, {**own, 'stages.0.blocks.0.mixer.nonsense': torch.ones(1)}, 'file')


def test_the_same_tensor_twice_is_an_error(tmp_path):
    weights = official_weights('classification')
    weights['norms.ln3.bias'] = weights['norm.bias'] + 1
    with pytest.raises(UserError, match='the same tensor twice, as norm.bias and as norms.ln3.bias'):
        by_init_model('classification', official_file(tmp_path, 'classification', weights))
