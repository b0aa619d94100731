"""The loss on the validation set: that of the training's own pipelines, and no trace of it in the training."""
import json
import logging
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import read_config
from mmdet.utils import reduce_mean
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from test_resume import Count, Noise, Stop, runner_for, same, state_of
from torch import nn

from dwnet.engine import Runner
from dwnet.engine.hooks.validation_loss import ValidationLossHook, _computing_losses
from dwnet.engine.reproducible import VALIDATION, randomness_kept, seed_generators
from dwnet.toolboxes import enter_scope, toolbox_of

NANO = dict(classification='configs/classification/dwnet-nano_digits.py',
            detection='configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
            segmentation='configs/segmentation/upernet_dwnet-nano_digits.py')
READ = dict(type='LoadImageFromFile')
LARGER, WIDER = dict(type='Resize', scale=(192, 160), keep_ratio=True), dict(type='Resize', scale=(150, 90),
                                                                            keep_ratio=False)
OBJECTS = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
POLYGONS = dict(OBJECTS, poly2mask=False)
LABELS, PAD = dict(type='LoadAnnotations'), dict(type='Pad', size_divisor=32)
DETECTION, SEGMENTATION = dict(type='PackDetInputs'), dict(type='PackSegInputs')


def losses_of_validation(cfg, model, dataset, number: int = 5) -> dict:
    """What the hook computes on the first images, in batches of four."""
    runner = SimpleNamespace(
        cfg=cfg, model=model, seed=3, val_dataloader=SimpleNamespace(dataset=dataset),
        message_hub=MessageHub.get_instance('losses'), logger=logging.getLogger('losses'))
    hook, metrics = ValidationLossHook(), {}
    model.eval()
    hook.before_val_epoch(runner)
    before = drawn()
    for i, batch in enumerate(batches(dataset, number)):
        hook.after_val_iter(runner, i, batch, batch['inputs'])
    assert drawn() == before, 'what a training would draw next'
    hook.after_val_epoch(runner, metrics)
    assert not any(module.training for module in model.modules())
    return metrics


def drawn() -> tuple:
    """The next number of each generator, which then stand as before."""
    with randomness_kept():
        return random.random(), np.random.rand(), torch.rand(1).item()


def with_polygons(annotations: Path, folder: Path) -> Path:
    """COCO annotations whose masks are the boxes, as polygons."""
    content = json.loads(annotations.read_text())
    for object_ in content['annotations']:
        x, y, width, height = object_['bbox']
        object_['segmentation'] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    path = folder / 'polygons.json'
    path.write_text(json.dumps(content))
    return path


def dataset_of(cfg, root: Path, folder: Path, pipeline: list[dict]):
    """The training images of the digits, through a pipeline."""
    data = dict(cfg.train_dataloader.dataset, data_root=str(root), pipeline=pipeline)
    if POLYGONS in pipeline:
        data['ann_file'] = str(with_polygons(root / 'annotations/train.json', folder))
    return DATASETS.build(data)


def batches(dataset, number: int) -> list[dict]:
    samples = [dataset[i] for i in range(number)]
    return [{key: [sample[key] for sample in samples[first:first + 4]] for key in samples[0]}
            for first in range(0, number, 4)]


def losses_of_training(model, dataset, number: int = 5) -> dict:
    """Those of a training's own code, for a model that neither drops nor averages."""
    model.train()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm, nn.Dropout, nn.Dropout2d)) or 'DropPath' in str(
                type(module)):
            module.eval()
    sums: dict = {}
    for i, batch in enumerate(batches(dataset, number)):
        seed_generators(3, VALIDATION, i, 0)
        with torch.no_grad():
            _, losses = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
        for key, loss in losses.items():
            sums[key] = sums.get(key, 0) + loss.item() * len(batch['inputs'])
    return {f'val/{key}': value / number for key, value in sums.items()}


DETECTORS = [
    ([READ, LARGER, OBJECTS, DETECTION], [READ, OBJECTS, LARGER, DETECTION]),
    ([READ, WIDER, PAD, OBJECTS, DETECTION], [READ, OBJECTS, WIDER, PAD, DETECTION]),
    ([READ, LARGER, POLYGONS, DETECTION], [READ, POLYGONS, LARGER, DETECTION]),
    ([READ, OBJECTS, LARGER, DETECTION], [READ, OBJECTS, LARGER, DETECTION])]  # is in the right pixels already


@pytest.mark.parametrize('testing, training', DETECTORS)
def test_boxes_and_masks_are_those_of_the_training(testing, training, small_digits, tmp_path):
    cfg = read_config(NANO['detection'])
    enter_scope(cfg)
    preprocessor = MODELS.build({**cfg.model.data_preprocessor, 'pad_mask': PAD not in testing, 'pad_size_divisor': 64})
    tested, trained = (dataset_of(cfg, small_digits, tmp_path, pipeline) for pipeline in (testing, training))
    batch, expected = (preprocessor(next(iter(batches(dataset, 3))), training)
                       for dataset, training in ((tested, False), (trained, True)))
    toolbox_of(cfg).fit_truth_to_input(batch, SimpleNamespace(data_preprocessor=preprocessor), tested)
    for one, other in zip(batch['data_samples'], expected['data_samples'], strict=True):
        found, truth = one.gt_instances, other.gt_instances
        assert len(found) > 1 and torch.allclose(found.bboxes, truth.bboxes) and torch.equal(found.labels, truth.labels)
        assert found.masks.to_ndarray().any() and (found.masks.to_ndarray() == truth.masks.to_ndarray()).all()


@pytest.mark.parametrize('task, testing, training', [
    ('classification', [READ, dict(type='PackInputs')], [READ, dict(type='PackInputs')]),
    ('detection', *DETECTORS[0]), ('detection', *DETECTORS[3]),
    ('segmentation', [READ, LARGER, LABELS, SEGMENTATION], [READ, LABELS, LARGER, SEGMENTATION]),
    ('segmentation', [READ, WIDER, LABELS, SEGMENTATION], [READ, LABELS, WIDER, SEGMENTATION])])
def test_the_losses_are_those_of_the_training_without_augmentation(task, testing, training, small_digits, tmp_path):
    cfg = read_config(NANO[task])
    enter_scope(cfg)
    cfg.model.backbone.drop_path_rate = .5
    if task == 'segmentation':
        cfg.model.data_preprocessor.update(size=None, size_divisor=1)
        cfg.model.decode_head.dropout_ratio = .5
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.model.get('data_preprocessor', cfg.get(
        'data_preprocessor'))})
    for module in model.modules():  # heads as they are initialised would see nothing of the boxes
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=.1)
    tested, trained = (dataset_of(cfg, small_digits, tmp_path, pipeline) for pipeline in (testing, training))
    found, expected = losses_of_validation(cfg, model, tested), losses_of_training(model, trained)
    assert found.keys() == expected.keys() and found['val/loss'] > 0
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
    if task == 'detection':
        assert {'val/loss_rpn_bbox', 'val/s2.loss_bbox', 'val/s0.loss_mask'} <= found.keys()
        assert found['val/loss_rpn_bbox'] > 0 and found['val/s0.loss_mask'] > 0


def test_only_heads_are_in_training_mode_and_buffers_stay():
    """Many heads of mmdet return what a loss needs in training mode alone."""
    head = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.MultiheadAttention(2, 1))
    model = nn.ModuleDict(dict(backbone=nn.Sequential(nn.Linear(2, 2)), bbox_head=head)).eval()
    head[3].train()
    before = {name: module.training for name, module in model.named_modules()}
    with pytest.raises(MemoryError), _computing_losses(model):
        training = {name for name, module in model.named_modules() if module.training}
        assert training == {'', 'bbox_head', 'bbox_head.0', 'bbox_head.3.out_proj'}
        head[1].running_mean += 1
        raise MemoryError
    assert {name: module.training for name, module in model.named_modules()} == before
    assert not head[1].running_mean.any()


class Uneven(Noise):
    """A validation set whose samples do not change."""

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return dict(x=torch.full((3, ), float(index)))


def with_validation(folder, hooks=(), **options) -> Runner:
    return runner_for(folder, workers=0, val_dataloader=dict(
        batch_size=4, dataset=Uneven(6), sampler=dict(type='DefaultSampler', shuffle=False)),
        val_evaluator=dict(type=Count), val_cfg={}, hooks=hooks, **options)


def test_the_training_goes_on_as_without_the_losses(tmp_path):
    """Also where a kill comes between; the log has each validation's own loss, and no mean with earlier ones."""
    plain, logged = with_validation(tmp_path / 'plain'), with_validation(tmp_path / 'logged', [ValidationLossHook()])
    plain.train()
    logged.train()
    assert same(state_of(plain), state_of(logged))
    with pytest.raises(InterruptedError):
        with_validation(tmp_path / 'cut', [ValidationLossHook(), Stop(11)]).train()
    resumed = with_validation(tmp_path / 'cut', [ValidationLossHook()], resume=True)
    resumed.train()
    assert same(state_of(resumed), state_of(plain))
    of_run = {}
    for name in ('logged', 'cut', 'plain'):
        records = [json.loads(line) for path in sorted((tmp_path / name).glob('*/vis_data/scalars.json'))
                   for line in path.read_text().splitlines()]
        of_run[name] = {r['step']: r['val/loss'] for r in records if 'val/loss' in r}
    assert of_run['logged'] == of_run['cut'] and list(of_run['logged']) == [1, 2, 3] and not of_run['plain']
    assert of_run['logged'][3] == logged.message_hub.get_scalar('val/val/loss').current()


def test_losses_that_cannot_be_computed_are_told_once(tmp_path):
    runner = with_validation(tmp_path, [ValidationLossHook()])
    said = []
    runner.logger.warning = lambda line, **_: said.append(line)
    forward = runner.model.forward

    def refuse(x, mode='tensor'):
        if mode == 'loss' and not torch.is_grad_enabled():
            raise KeyError('gt_instances')
        return forward(x, mode=mode)

    runner.model.forward = refuse
    runner.train()
    assert runner.iter == 18
    assert [line for line in said if 'validation' in line] == [
        "no loss on the validation set can be computed: KeyError: 'gt_instances'"]


def test_no_process_waits_for_another_whose_loss_fails(monkeypatch):
    """mmdet's heads average over the processes, and one of them may have run out of memory."""
    class Head(BaseModel):
        def forward(self, x, mode):
            return dict(loss=reduce_mean(x.mean()))

    monkeypatch.setattr('mmdet.utils.dist_utils.dist.all_reduce', lambda *_, **__: pytest.fail('it waited for others'))
    hook, metrics = ValidationLossHook(), {}
    runner = SimpleNamespace(cfg={}, model=Head(), seed=0, val_dataloader=SimpleNamespace(dataset=[]))
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        hook.after_val_iter(runner, 0, dict(x=torch.ones(2)), [0, 1])
        hook.after_val_epoch(runner, metrics)
    finally:
        torch.distributed.destroy_process_group()
    assert metrics == {'val/loss': 1}
