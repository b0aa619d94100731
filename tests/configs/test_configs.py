"""Every config: it trains and predicts, its recipe is the published one, its size is right."""
import copy
import functools
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import is_recipe, read_config
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.structures import InstanceData, PixelData

from dwnet.inspect.flops import count
from dwnet.models import DWNet
from dwnet.weights.names import OFFICIAL_RELEASE, official_name

CONFIGS = sorted(str(p) for p in Path('configs').glob('*/*.py') if not p.parent.name.startswith('_'))
# those of other toolboxes have tests of their own
DIGITS = [c for c in CONFIGS if 'digits' in c and c.split('/')[1] in ('classification', 'detection', 'segmentation')]
RECIPE_CONFIGS = [c for c in CONFIGS if is_recipe(c)]  # their own tests are in test_recipes.py
PUBLISHED = [c for c in CONFIGS if 'digits' not in c and c not in RECIPE_CONFIGS]


def make_batch(cfg: Config, size: tuple[int, int]) -> dict:
    """Two random images with annotations, as the data loader of the config's toolbox collates them."""
    height, width = size
    inputs = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(2)]
    meta = dict(img_shape=size, ori_shape=size, scale_factor=(1., 1.), img_id=0, img_path='', pad_shape=size)
    samples = []
    for i in range(2):
        if cfg.default_scope == 'mmpretrain':
            from mmpretrain.structures import DataSample
            samples.append(DataSample(metainfo=meta).set_gt_label(i))
        elif cfg.default_scope in ('mmdet', 'mmyolo'):
            from mmdet.structures import DetDataSample
            from mmdet.structures.mask import BitmapMasks
            masks = np.zeros((2, height, width), np.uint8)
            boxes = torch.tensor([[4., 6., width / 2, height / 2], [width / 3, height / 3, width - 3., height - 5.]])
            for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
                mask[y1:y2, x1:x2] = 1
            sample = DetDataSample(metainfo=meta)
            sample.gt_instances = InstanceData(
                bboxes=boxes, labels=torch.tensor([i, 5]), masks=BitmapMasks(masks, height, width))
            if (cfg.model.get('panoptic_head') or {}).get('num_stuff_classes'):
                sample.gt_sem_seg = PixelData(sem_seg=torch.randint(80, 133, (1, *size)))
            samples.append(sample)
        elif cfg.default_scope == 'mmrotate':
            from mmdet.structures import DetDataSample
            from mmrotate.structures.bbox import RotatedBoxes
            sample = DetDataSample(metainfo=meta)
            boxes = RotatedBoxes(torch.tensor([[width / 3, height / 2, 40., 20., .5], [width / 2, 50., 24., 34., -.3]]))
            sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([i, 5]))
            samples.append(sample)
        else:
            from mmseg.structures import SegDataSample
            samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=torch.randint(0, 9, (1, *size)))))
    return dict(inputs=inputs, data_samples=samples)


def training_batch(cfg: Config, batch: dict) -> dict:
    """The batch as the config's collate function makes it."""
    if cfg.default_scope != 'mmyolo':
        return batch
    from mmdet.structures.bbox import HorizontalBoxes
    from mmyolo.datasets import yolov5_collate
    packed = []
    for inputs, sample in zip(batch['inputs'], batch['data_samples']):
        sample = sample.clone()
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(sample.gt_instances.bboxes), labels=sample.gt_instances.labels)
        packed.append(dict(inputs=inputs, data_samples=sample))
    return yolov5_collate(packed)


SIZES = dict(mmpretrain=(64, 64), mmdet=(96, 160), mmseg=(64, 64), mmyolo=(96, 160), mmrotate=(96, 160))


@pytest.mark.parametrize('config', [
    *DIGITS, *(pytest.param(c, marks=pytest.mark.long) for c in PUBLISHED)])
def test_builds_trains_and_predicts(config, device):
    cfg = read_config(config)
    cfg.model.backbone.init_cfg = None  # the published weights are on the net
    cfg.model.backbone.drop_path_rate = 0.  # a dropped block has no gradient
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = SIZES['mmseg']
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).to(device)
    model.init_weights()
    model.train()
    assert isinstance(model.backbone, DWNet)
    batch = make_batch(cfg, SIZES[cfg.default_scope])
    data = model.data_preprocessor(training_batch(cfg, copy.deepcopy(batch)), training=True)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=.1)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite()
    loss.backward()
    assert [n for n, p in model.backbone.named_parameters() if p.grad is None or not p.grad.any()] == []
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
    optimizer.step()
    assert sum(not torch.equal(a, b) for a, b in zip(before, model.parameters())) > len(before) / 2

    model.eval()
    height, width = SIZES[cfg.default_scope]
    odd = (height + 3, width - 5)
    with torch.no_grad():
        result = model.test_step(make_batch(cfg, odd))
    assert len(result) == 2
    if cfg.default_scope == 'mmpretrain':
        assert torch.allclose(result[0].pred_score.sum().cpu(), torch.tensor(1.))
    elif cfg.default_scope == 'mmdet':
        predicted = result[0].pred_instances
        assert predicted.masks.shape[1:] == odd and len(predicted.bboxes) == len(predicted.scores)
    elif cfg.default_scope == 'mmrotate':
        predicted = result[0].pred_instances
        assert predicted.bboxes.shape == (len(predicted.scores), 5)
    elif cfg.default_scope == 'mmyolo':
        predicted = result[0].pred_instances
        assert len(predicted.bboxes) == len(predicted.scores) == len(predicted.labels)
        assert predicted.bboxes.isfinite().all()
    else:
        assert result[0].pred_sem_seg.data.shape[1:] == odd


@pytest.mark.parametrize('config', CONFIGS)
def test_says_how_it_is_used(config):
    text = Path(config).read_text()
    assert text.startswith('"""') and config in text.split('"""')[1], 'the docstring gives its command'
    cfg = read_config(config)
    assert cfg.auto_scale_lr.base_batch_size > 0


# Task → total batch, learning rate, weight decay, epochs or iterations; and (tiny, base) → drop path, images a GPU
RECIPES = {
    'mmpretrain': dict(batch=1024, lr=1e-3, decay=.05, length=300, drop_path=(.2, .5), images=(128, 64)),
    'mmdet': dict(batch=16, lr=1e-4, decay=.05, length=36, drop_path=(.2, .3), images=(2, 2)),
    'mmseg': dict(batch=16, lr=6e-5, decay=.01, length=160000, drop_path=(.3, .3), images=(2, 2)),
}
MIXERS = {'dwnet': 'static', 'dynamic-dwnet': 'dynamic', 'i-dynamic-dwnet': 'inhomogeneous',
          'local-mlp-dwnet': 'local_mlp'}


def test_every_published_config_is_there():
    names = {Path(c).stem for c in PUBLISHED}
    models = [f'{mixer}-{arch}' for mixer in MIXERS for arch in ('tiny', 'base')]
    assert names == {f'{m}_in1k' for m in models} | {
        pattern.format(m) for m in models if 'mlp' not in m
        for pattern in ('cascade-mask-rcnn_{}_fpn_3x_coco', 'upernet_{}_160k_ade20k-512x512')}


@pytest.mark.parametrize('config', PUBLISHED)
def test_recipe(config):
    cfg = read_config(config)
    wanted = RECIPES[cfg.default_scope]
    base = '-base' in config
    mixer = re.search(r'([a-z-]*dwnet)-(?:tiny|base)', Path(config).stem)[1]
    optimizer, backbone = cfg.optim_wrapper.optimizer, cfg.model.backbone
    assert (backbone.arch, backbone.get('token_mixer', 'static')) == ('base' if base else 'tiny', MIXERS[mixer])
    assert backbone.drop_path_rate == wanted['drop_path'][base]
    assert cfg.train_dataloader.batch_size == wanted['images'][base]
    assert cfg.auto_scale_lr.base_batch_size == wanted['batch']
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', wanted['lr'], wanted['decay'])
    assert tuple(optimizer.betas) == (.9, .999) and optimizer.get('eps', 1e-8) == 1e-8
    assert cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters')) == wanted['length']
    assert cfg.optim_wrapper.get('clip_grad') == (dict(max_norm=5.) if cfg.default_scope == 'mmpretrain' else None)
    assert backbone.get('frozen_stages', -1) == -1
    # fp16 did not train the base models for the authors
    amp = cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert amp == (not base and cfg.default_scope != 'mmseg')
    if cfg.default_scope == 'mmpretrain':
        assert f'{16 if base else 8} GPUs × {wanted["images"][base]} images' in Path(config).read_text()
    else:
        assert backbone.pad_to_window and backbone.out_norm_cfg.type == backbone.norm_cfg.type == 'SyncBN'
        model = f'{mixer}-{backbone.arch}'
        assert backbone.init_cfg.checkpoint == (
            f'work_dirs/{model}_in1k/epoch_300.pth' if mixer == 'i-dynamic-dwnet' else
            f'{OFFICIAL_RELEASE}/{model.replace("-", "_")}_224.pth')


def test_augmentation_of_the_recipes():
    """By the toolboxes' names, what the official recipes say."""
    cfg = read_config('configs/classification/dwnet-tiny_in1k.py')
    crop, flip, augment, erase = cfg.train_dataloader.dataset.pipeline[1:5]
    assert (crop.type, crop.scale, crop.interpolation) == ('RandomResizedCrop', 224, 'bicubic') and flip.prob == .5
    assert (augment.num_policies, augment.magnitude_level, augment.magnitude_std) == (2, 9, .5)
    assert augment.policies == 'timm_increasing'  # rand-m9-mstd0.5-inc1
    assert (erase.type, erase.erase_prob, erase.mode) == ('RandomErasing', .25, 'rand')
    resize, center = cfg.test_dataloader.dataset.pipeline[1:3]
    assert (resize.scale, resize.edge, resize.interpolation, center.crop_size) == (256, 'short', 'bicubic', 224)
    assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [('Mixup', .8), ('CutMix', 1.)]
    assert cfg.model.head.loss.label_smooth_val == .1
    cfg = read_config('configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py')
    flip, choice = cfg.train_dataloader.dataset.pipeline[2:4]
    scales = [(short, 1333) for short in range(480, 801, 32)]
    whole, (first, crop, last) = choice.transforms[0][0], choice.transforms[1]
    assert flip.prob == .5 and [tuple(s) for s in whole.scales] == [tuple(s) for s in last.scales] == scales
    assert {s[0] for s in first.scales} == {400, 500, 600} and tuple(crop.crop_size) == (384, 600)
    assert tuple(cfg.test_dataloader.dataset.pipeline[1].scale) == (1333, 800)
    assert [head.loss_bbox.loss_weight for head in cfg.model.roi_head.bbox_head] == [10.] * 3
    cfg = read_config('configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py')
    resize, crop, flip, distort = cfg.train_dataloader.dataset.pipeline[2:6]
    assert tuple(resize.scale) == (2048, 512) and tuple(resize.ratio_range) == (.5, 2.)
    assert tuple(crop.crop_size) == (512, 512) and crop.cat_max_ratio == .75 and flip.prob == .5
    assert distort.type == 'PhotoMetricDistortion' and cfg.model.test_cfg.mode == 'whole'
    assert (cfg.model.decode_head.channels, cfg.model.decode_head.dropout_ratio) == (512, .1)
    head = cfg.model.auxiliary_head
    assert (head.in_index, head.channels, head.loss_decode.loss_weight) == (2, 256, .4)


# Iterations of an epoch: images of the data set over the total batch; ADE20K counts none.
EPOCH = {'mmpretrain': 1_281_167 // 1024, 'mmdet': 117_266 // 16, 'mmseg': 1000}
STEPS = {'mmpretrain': 300 * EPOCH['mmpretrain'], 'mmdet': 36 * EPOCH['mmdet'], 'mmseg': 160_000}


def published_rate(task: str, step: int) -> float:
    """The learning rate at an iteration, by the official schedulers' formulas."""
    if task == 'mmpretrain':  # timm's CosineLRScheduler, whose cosine counts the warm-up's steps
        warmup = 20 * EPOCH[task]
        if step < warmup:
            return 1e-6 + (1e-3 - 1e-6) * step / warmup
        return 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * step / STEPS[task])) / 2
    if task == 'mmdet':  # mmcv's StepLrUpdaterHook
        epoch = step // EPOCH[task]
        rate, warmup, ratio = 1e-4 * .1**((epoch >= 27) + (epoch >= 33)), 500, 1e-3
    else:  # mmcv's PolyLrUpdaterHook
        rate, warmup, ratio = 6e-5 * (1 - step / STEPS[task]), 1500, 1e-6
    return rate * (1 - (1 - step / warmup) * (1 - ratio)) if step < warmup else rate


@functools.cache
def rates(task: str, schedule: str) -> list[float]:
    """The learning rate at every iteration, as mmengine's Runner and hooks step the schedulers."""
    lr, schedulers = json.loads(schedule)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    built = []
    for scheduler in schedulers:
        length = RECIPES[task]['length'] if scheduler.get('by_epoch', True) else STEPS[task]
        built.append(PARAM_SCHEDULERS.build({'end': length, **scheduler},
                                            default_args=dict(optimizer=optimizer, epoch_length=EPOCH[task])))
    curve = []
    optimizer.step()
    for step in range(STEPS[task]):
        curve.append(optimizer.param_groups[0]['lr'])
        for scheduler in built:
            if not scheduler.by_epoch or (step + 1) % EPOCH[task] == 0:
                scheduler.step()
    return curve


@pytest.mark.parametrize('config', PUBLISHED)
def test_learning_rate_at_every_epoch_and_at_random_steps(config):
    cfg = read_config(config)
    task = cfg.default_scope
    schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    curve = rates(task, json.dumps([cfg.optim_wrapper.optimizer.lr, [dict(s) for s in schedulers]]))
    boundaries = [b + d for b in range(0, STEPS[task], EPOCH[task]) for d in (-1, 0, 1) if b + d >= 0]
    for step in [*boundaries, *random.Random(0).sample(range(STEPS[task]), 10), STEPS[task] - 1]:
        assert curve[step] == pytest.approx(published_rate(task, step), rel=1e-9), step


def test_scaled_learning_rate_keeps_the_curves_form():
    """The official start and end of the ImageNet schedule grow with the batch size, as the peak does."""
    cfg = read_config('configs/classification/dwnet-tiny_in1k.py')
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    optimizer.step()
    scheduler = PARAM_SCHEDULERS.build({**cfg.param_scheduler, 'end': 300},
                                       default_args=dict(optimizer=optimizer, epoch_length=1))
    seen = []
    for _ in range(300):
        seen.append(optimizer.param_groups[0]['lr'])
        scheduler.step()
    assert seen[0] == pytest.approx(2e-6) and seen[20] == pytest.approx(2e-3 * (.01 + .99 * (1 + math.cos(
        math.pi / 15)) / 2)) and 2e-5 < seen[-1] < 2.01e-5 + 2e-3 * 3e-5


@pytest.mark.parametrize('config', PUBLISHED)
def test_weight_decay_of_every_parameter(config):
    cfg = read_config(config)
    cfg.optim_wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    cfg.optim_wrapper.pop('dtype', None)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    full = RECIPES[cfg.default_scope]['decay']
    seen = set()
    for name, parameter in model.named_parameters():
        official = official_name(name, 'i-dynamic' in config)
        if cfg.default_scope == 'mmpretrain':
            none = parameter.ndim == 1 or official.endswith('.bias')
        else:
            none = 'norm' in official
        assert decays.pop(id(parameter)) == (0 if none else full), name
        seen.add(none)
    assert not decays and seen == {True, False}


PUBLISHED_SIZES = {  # millions of parameters, G multiply-adds
    'cascade-mask-rcnn_dwnet-tiny': (81.5, 730), 'cascade-mask-rcnn_dwnet-base': (131.6, 924),
    'cascade-mask-rcnn_dynamic-dwnet-tiny': (108.5, 730), 'cascade-mask-rcnn_dynamic-dwnet-base': (218.8, 924),
    'upernet_dwnet-tiny': (55.8, 928), 'upernet_dwnet-base': (107.9, 1129),
    'upernet_dynamic-dwnet-tiny': (82.8, 928), 'upernet_dynamic-dwnet-base': (195.1, 1129),
    'dwnet-tiny': (24.172744, 3.742), 'dwnet-base': (74.347112, 12.845),
    'dynamic-dwnet-tiny': (51.131752, 3.771), 'dynamic-dwnet-base': (161.597928, 12.935),
    'i-dynamic-dwnet-tiny': (26.244280, 4.389), 'i-dynamic-dwnet-base': (80.253608, 14.372),
}


@pytest.mark.parametrize('name', PUBLISHED_SIZES)
def test_sizes_are_the_published_ones(name):
    millions, macs = PUBLISHED_SIZES[name]
    cfg = read_config(next(c for c in PUBLISHED if Path(c).name.startswith((f'{name}_', f'{name}-fpn'))))
    parts = count(cfg)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    parameters = sum(p.numel() for p in model.parameters())
    assert sum(part.parameters for part in parts) == parameters
    assert parameters / 1e6 == pytest.approx(millions, rel=5e-3)
    assert sum(part.macs for part in parts) / 1e9 == pytest.approx(macs, rel=1e-2)
