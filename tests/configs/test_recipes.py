"""The recipes with the toolboxes' heads: all but the backbone is the toolbox's, and models train and predict."""
import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, is_recipe, read_config
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from test_configs import MIXERS, RECIPE_CONFIGS, make_batch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from dwnet.models import DWNet
from dwnet.weights.names import OFFICIAL_RELEASE

SOURCES = {model['Config']: model['Recipe'] for task in ('detection', 'segmentation')
           for model in yaml.safe_load((ROOT / f'configs/{task}/metafile.yml').read_text())['Models']
           if 'Recipe' in model}
HEADS = ('rtmdet', 'dino-4scale', 'mask2former', 'segformer', 'knet')
MODELS_OF_HEADS = [f'{mixer}-{arch}' for mixer in ('dwnet', 'dynamic-dwnet') for arch in ('tiny', 'base')]
# One of each head of a toolbox, and panoptic segmentation: in the everyday suite
EVERYDAY = [c for c in RECIPE_CONFIGS if re.search(r'_dwnet-tiny_.*(coco|coco-panoptic|ade20k-512x512)\.py$', c)]
ALL = [pytest.param(c, id=Path(c).stem, marks=[] if c in EVERYDAY else pytest.mark.long) for c in RECIPE_CONFIGS]
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def head_of(config: str) -> str:
    return Path(config).stem.partition('_')[0]


def test_every_recipe_is_there():
    expected = {pattern.format(model) for model in MODELS_OF_HEADS for pattern in (
        'rtmdet_{}_100e_coco', 'dino-4scale_{}_12e_coco', 'mask2former_{}_lsj-50e_coco',
        'mask2former_{}_lsj-50e_coco-panoptic', 'mask2former_{}_160k_ade20k-512x512',
        'segformer_{}_160k_ade20k-512x512', 'knet_{}_80k_ade20k-512x512')}
    cities = {f'{name}_cityscapes-{crop}' for name, crop in (
        ('mask2former_dwnet-tiny_90k', '512x1024'), ('segformer_dwnet-tiny_160k', '1024x1024'),
        ('knet_dwnet-tiny_80k', '512x1024'))}
    assert {Path(c).stem for c in RECIPE_CONFIGS} == expected | cities
    assert {*SOURCES} == {*RECIPE_CONFIGS} and {head_of(c) for c in RECIPE_CONFIGS} == {*HEADS}


@pytest.mark.parametrize('config', RECIPE_CONFIGS)
def test_backbone_and_its_weights(config):
    backbone = read_config(config).model.backbone
    mixer, arch = re.search(r'_([a-z-]*dwnet)-(tiny|base)_', config).groups()
    assert (backbone.arch, backbone.get('token_mixer', 'static')) == (arch, MIXERS[mixer])
    assert backbone.init_cfg.checkpoint == f'{OFFICIAL_RELEASE}/{mixer.replace("-", "_")}_{arch}_224.pth'
    assert backbone.norm_cfg.type == backbone.out_norm_cfg.type == 'SyncBN'
    source = get_config(SOURCES[config]).model.backbone
    if 'drop_path_rate' in source:  # the ResNet of DINO has none
        assert backbone.drop_path_rate == source.drop_path_rate


SECTIONS = ('train_cfg', 'val_cfg', 'test_cfg', 'param_scheduler', 'train_dataloader', 'val_dataloader',
            'test_dataloader', 'val_evaluator', 'test_evaluator', 'custom_hooks', 'default_hooks', 'log_processor',
            'optim_wrapper', 'model', 'tta_model', 'tta_pipeline')


def without(node: Any, *names: str) -> Any:
    """A part of a config without the settings of these names, at any depth."""
    if isinstance(node, dict):
        return {key: without(value, *names) for key, value in node.items() if key not in names}
    return [without(value, *names) for value in node] if isinstance(node, (list, tuple)) else node


def test_dino_is_trained_as_dino_with_swin():
    ours = read_config('configs/detection/dino-4scale_dwnet-tiny_12e_coco.py')
    swin = get_config('mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py')
    for key in ('train_cfg', 'param_scheduler', 'optim_wrapper'):
        assert without(ours[key], '_scope_') == without(swin[key], '_scope_')
    assert ours.model.backbone.drop_path_rate == swin.model.backbone.drop_path_rate


@pytest.mark.parametrize('config', ALL)
def test_all_but_the_backbone_is_the_toolboxs(config):
    assert SOURCES[config] in Path(config).read_text()
    ours, theirs = read_config(config), get_config(SOURCES[config])
    names = ('backbone', 'in_channels', 'pretrained', 'init_cfg', 'custom_keys', 'drop_last', '_scope_')
    sections = {*SECTIONS}
    if config.endswith('lsj-50e_coco.py'):  # mmdet's instances have a folder of panoptic segments, which none reads
        names += ('seg', )
    if 'knet' in config and 'cityscapes' in config:  # mmseg has none; the data are those of its other configs
        sections -= {'train_dataloader', 'val_dataloader', 'test_dataloader'}
        names += ('num_classes', 'size')
        cities = get_config('mmseg::_base_/datasets/cityscapes.py')
        for part in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            assert without(ours[part].dataset, '_scope_') == without(cities[part].dataset, '_scope_')
            assert ours[part].batch_size == cities[part].batch_size
    for section in sections:
        assert without(ours.get(section), *names) == without(theirs.get(section), *names), section
    gpus, images = map(int, re.search(r'(\d) GPUs × (\d+) image', Path(config).read_text()).groups())
    assert ours.train_dataloader.batch_size == images and ours.auto_scale_lr.base_batch_size == gpus * images
    assert f'dist_train.sh {config} {gpus}\n' in Path(config).read_text()


def test_k_net_of_cityscapes_differs_in_classes_alone():
    ade, cities = (read_config(f'configs/segmentation/knet_dwnet-tiny_80k_{data}.py').model
                   for data in ('ade20k-512x512', 'cityscapes-512x1024'))
    assert without(ade, 'num_classes', 'size') == without(cities, 'num_classes', 'size')
    assert '150' not in str(cities.decode_head)


def wanted_rate_and_decay(head: str, name: str, module: nn.Module) -> tuple[float, float]:
    """The factors of learning rate and weight decay that the source gives to a parameter of the model."""
    backbone, norm = name.startswith('backbone.'), isinstance(module, NORMS)
    if head == 'rtmdet':
        return 1., float(not norm and not name.endswith('bias'))
    if head == 'dino-4scale':
        return .1 if backbone else 1., 1.
    if head == 'mask2former':
        embedding = any(part in name for part in ('query_embed', 'query_feat', 'level_embed'))
        return .1 if backbone else 1., float(not norm and not embedding)
    if head == 'segformer':
        return 1. if backbone else 10., float(not (backbone and norm))
    return 1., float(not (backbone and norm or 'norm' in name))


@pytest.mark.parametrize('config', ALL)
def test_learning_rate_and_weight_decay_of_every_parameter(config):
    cfg = read_config(config)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    groups = {id(p): (group['lr'], group['weight_decay']) for group in optimizer.param_groups for p in group['params']}
    lr, decay = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay
    seen = set()
    for name, parameter in model.named_parameters():
        module = model.get_submodule(name.rpartition('.')[0])
        rate, factor = wanted_rate_and_decay(head_of(config), name, module)
        assert groups.pop(id(parameter)) == pytest.approx((lr * rate, decay * factor)), name
        seen.add((rate, factor))
    assert not groups and len(seen) > 1


def build(config: str, shallow: bool) -> tuple[Config, nn.Module]:
    cfg = read_config(config)
    cfg.model.backbone.init_cfg = None  # the weights are on the net
    cfg.model.backbone.drop_path_rate = 0.  # a dropped block has no gradient
    if 'num_queries' in cfg.model:  # DINO chooses so many of the cells
        cfg.model.num_queries = 100
    if shallow:
        cfg.model.backbone.arch = dict(embed_dims=96, depths=(1, 1, 1, 1))
    preprocessor = cfg.model.data_preprocessor
    for part in (preprocessor, *(preprocessor.get('batch_augments') or ())):
        if 'size' in part:  # images are padded to it
            part.size = (64, 64) if cfg.default_scope == 'mmseg' else (96, 160)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    return cfg, model


def losses(cfg: Config, model: nn.Module) -> torch.Tensor:
    batch = make_batch(cfg, (64, 64) if cfg.default_scope == 'mmseg' else (96, 160))
    if cfg.default_scope == 'mmdet' and 'panoptic_head' not in cfg.model:  # detectors have no masks
        for sample in batch['data_samples']:
            del sample.gt_instances.masks
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    return model.parse_losses(model(**data, mode='loss'))[0]


CASES = [pytest.param(c, True, id=f'{Path(c).stem}-shallow') for c in EVERYDAY] + [
    pytest.param(c, False, id=Path(c).stem, marks=pytest.mark.long) for c in RECIPE_CONFIGS]


@pytest.mark.parametrize('config, shallow', CASES)
def test_trains_and_predicts(config, shallow, device):
    cfg, model = build(config, shallow)
    model = model.to(device).train()
    assert isinstance(model.backbone, DWNet) and is_recipe(config)
    loss = losses(cfg, model)
    assert loss.isfinite()
    loss.backward()
    assert [n for n, p in model.backbone.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    model.eval()
    odd = (67, 59) if cfg.default_scope == 'mmseg' else (99, 155)
    if head_of(config) == 'rtmdet':  # mmdet's neck takes multiples of 32, to which the pipeline pads
        odd = (64, 128)
    with torch.no_grad():
        results = model.test_step(make_batch(cfg, odd))
    assert len(results) == 2
    for result in results:
        if cfg.default_scope == 'mmseg':
            assert result.pred_sem_seg.data.shape[1:] == odd
            continue
        found = result.pred_instances
        assert len(found.bboxes) == len(found.scores) == len(found.labels) and found.scores.isfinite().all()
        if head_of(config) == 'mask2former':
            assert found.masks.shape == (len(found.scores), *odd)
        if 'panoptic' in config:
            assert result.pred_panoptic_seg.sem_seg.shape == (1, *odd)


@pytest.mark.parametrize('config', [
    pytest.param(c, id=Path(c).stem, marks=[pytest.mark.long] * ('mask2former_dwnet-tiny_lsj-50e_coco.py' not in c))
    for c in EVERYDAY])
def test_a_step_in_bfloat16_is_finite(config, device):
    cfg, model = build(config, shallow=True)
    model = model.to(device).train()
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        loss = losses(cfg, model)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss.isfinite() and len(gradients) > 100 and all(g.isfinite().all() for g in gradients)
