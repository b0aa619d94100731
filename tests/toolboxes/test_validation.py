"""Validation without logits of all pixels and classes, compared with mmseg's; the message about waiting for data."""
import copy
import functools
import json
import types

import numpy as np
import pytest
import torch
from conftest import read_config, run_tool
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from dwnet.engine.hooks import data_stall
from dwnet.engine.hooks.data_stall import Waiting, WaitingHook

SEGMENTATION = 'configs/segmentation/upernet_dwnet-nano_digits.py'
PADDING = dict(padding_size=[2, 3, 4, 5])


@functools.cache
def _built(classes: int):
    cfg = read_config(SEGMENTATION)
    cfg.model.decode_head.update(num_classes=classes, loss_decode=dict(type='CrossEntropyLoss'))
    cfg.model.auxiliary_head = None
    return MODELS.build(cfg.model).eval()


def small_segmentor(classes: int = 40, **test_cfg):
    model = copy.deepcopy(_built(classes))
    model.test_cfg = ConfigDict(test_cfg or dict(mode='whole'))
    return model


def samples_for(inputs, **meta) -> list:
    from mmseg.structures import SegDataSample
    size = tuple(inputs.shape[-2:])
    return [SegDataSample(metainfo={'img_shape': size, 'pad_shape': size, 'ori_shape': size, **meta}) for _ in inputs]


@pytest.mark.parametrize('meta', [
    {}, dict(ori_shape=(97, 151)), dict(ori_shape=(97, 151), **PADDING), dict(img_padding_size=[0, 7, 0, 1]),
    dict(flip=True, flip_direction='horizontal', **PADDING), dict(flip=True, flip_direction='vertical')])
@pytest.mark.parametrize('how, align_corners', [
    (dict(mode='whole'), False), (dict(mode='whole'), True),
    (dict(mode='slide', crop_size=(48, 48), stride=(32, 32)), False)], ids=['whole', 'corners aligned', 'slide'])
def test_the_same_classes_and_no_logits(meta, how, align_corners):
    from dwnet.toolboxes.mmseg.lean import make_lean
    model, inputs = small_segmentor(**how), torch.randn(2, 3, 64, 80)
    model.align_corners = model.decode_head.align_corners = align_corners
    with torch.no_grad():
        expected = model.predict(inputs, samples_for(inputs, **meta))
        assert 'seg_logits' in expected[0] and len(expected[0].pred_sem_seg.data.unique()) > 3
        make_lean(model)
        found = model.predict(inputs, samples_for(inputs, **meta))
    for one, other in zip(expected, found):
        assert 'seg_logits' not in other
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)


def test_without_samples_and_with_one_output():
    from dwnet.toolboxes.mmseg.lean import make_lean
    model, inputs = small_segmentor(2), torch.randn(2, 3, 64, 64)
    model.decode_head.conv_seg = torch.nn.Conv2d(model.decode_head.channels, 1, 1)  # as out_channels=1 makes it
    model.decode_head.threshold = .5
    with torch.no_grad():
        expected, with_size = model.predict(inputs), model.predict(inputs, samples_for(inputs, ori_shape=(70, 90)))
        make_lean(model)
        found, also = model.predict(inputs), model.predict(inputs, samples_for(inputs, ori_shape=(70, 90)))
    for one, other in zip([*expected, *with_size], [*found, *also]):
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
    assert found[0].pred_sem_seg.data.unique().tolist() == [0, 1]


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('classes', [2, 16, 17, 150])
def test_ties_go_to_the_first_class(classes, layout):
    from mmseg.models.utils import resize

    from dwnet.toolboxes.mmseg.lean import _best_class, _ToImage
    logits = torch.randint(0, 3, (1, classes, 9, 13)).float().to(memory_format=layout)
    for size in ((9, 13), (36, 52), (50, 41)):
        whole = resize(logits, (36, 52), mode='bilinear', align_corners=False)
        expected = resize(whole, size, mode='bilinear', align_corners=False)[0].argmax(0, keepdim=True)
        assert torch.equal(_best_class(logits[0], _ToImage(dict(ori_shape=size), (36, 52), False)), expected)


def test_few_classes_are_resized_at_a_time(monkeypatch):
    """150 maps of the image's size are what takes the memory."""
    from dwnet.toolboxes.mmseg import lean as lean_segmentation
    model, inputs, seen = small_segmentor(150), torch.randn(1, 3, 64, 64), []
    resize = lean_segmentation.resize
    monkeypatch.setattr(lean_segmentation, 'resize', lambda x, **kwargs: seen.append(x.shape[1]) or resize(x, **kwargs))
    monkeypatch.setattr('mmseg.models.segmentors.base.resize', None)
    monkeypatch.setattr('mmseg.models.decode_heads.decode_head.resize', None)
    lean_segmentation.make_lean(model)
    with torch.no_grad():
        model.predict(inputs, samples_for(inputs, ori_shape=(100, 100)))
    assert sum(seen) == 2 * 150 and max(seen) == 16


def test_a_model_with_its_own_results_stays_as_it_is():
    from mmseg.models import EncoderDecoder

    from dwnet.toolboxes.mmseg.lean import make_lean

    class Own(EncoderDecoder):
        def postprocess_result(self, seg_logits, data_samples=None):
            return super().postprocess_result(seg_logits, data_samples)

    model = small_segmentor()
    model.__class__ = Own
    make_lean(model)
    assert 'postprocess_result' not in vars(model) and 'predict_by_feat' not in vars(model.decode_head)


@pytest.mark.parametrize('number', [2, 11, 150])
def test_scores_are_those_of_mmseg(number, tmp_path):
    from mmseg.evaluation.metrics import IoUMetric

    from dwnet.toolboxes.mmseg.lean import LeanIoUMetric
    metrics = [kind(iou_metrics=['mIoU', 'mDice', 'mFscore'], output_dir=str(tmp_path / kind.__name__))
               for kind in (IoUMetric, LeanIoUMetric)]
    generator = torch.Generator().manual_seed(number)
    for i in range(4):
        size = (1, 37 + i, 53 + 2 * i)
        truth = torch.randint(0, number, size, generator=generator)
        guess = torch.where(torch.rand(size, generator=generator) < .6, truth,
                            torch.randint(0, number, size, generator=generator))
        truth[torch.rand(size, generator=generator) < .1] = 255  # ignored
        truth[torch.rand(size, generator=generator) < .01] = number + 3  # of no class
        sample = dict(pred_sem_seg=dict(data=guess), gt_sem_seg=dict(data=truth.to(torch.uint8)),
                      img_path=f'{i}.jpg', reduce_zero_label=i % 2)
        for metric in metrics:
            metric.dataset_meta = dict(classes=[str(c) for c in range(number)])
            metric.process({}, [sample])
    stock, lean = (metric.evaluate(4) for metric in metrics)
    assert {k: f'{v:.2f}' for k, v in stock.items()} == {k: f'{v:.2f}' for k, v in lean.items()}
    assert set(lean) >= {'mIoU', 'aAcc', 'mDice'} and 20 < lean['mIoU'] < 70
    for i in range(4):
        assert ((tmp_path / f'IoUMetric/{i}.png').read_bytes() == (tmp_path / f'LeanIoUMetric/{i}.png').read_bytes())


@pytest.mark.parametrize('guess', [[0, 3, 3, 1, 2, 3], [0, 9, 1, 2, 2, 40], [-1, 0, 0, 1, 2, 2]])
def test_a_head_may_know_more_classes_than_the_data(guess):
    from mmseg.evaluation.metrics import IoUMetric

    from dwnet.toolboxes.mmseg.lean import LeanIoUMetric
    guess, truth = torch.tensor(guess), torch.tensor([0, 0, 0, 1, 2, 2])
    expected = IoUMetric.intersect_and_union(guess, truth, 3, 255)
    assert LeanIoUMetric.intersect_and_union(guess, truth, 3, 255).tolist() == torch.stack(expected).tolist()


def test_counts_are_whole_numbers():
    """float32, in which mmseg counts, loses every second pixel from here on."""
    from dwnet.toolboxes.mmseg.lean import LeanIoUMetric
    metric = LeanIoUMetric()
    metric.dataset_meta = dict(classes=['a', 'b'])
    one = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]).T
    many = torch.tensor([[2**24] * 4, [2**24] * 4]).T
    metric.results = [many, *[one] * 2**12]
    areas = {}
    metric.total_area_to_metrics = lambda *args: areas.update(label=args[3].tolist()) or dict(aAcc=0., IoU=np.zeros(2))
    metric.evaluate(len(metric.results))
    assert areas['label'] == [2**24 + 2**12, 2**24]


def test_a_whole_test_gives_the_same_scores(small_digits, tmp_path):
    """By the command line, over the data set, with pictures and label images; the weights are random."""
    checkpoint = tmp_path / 'weights.pth'
    cfg = read_config(SEGMENTATION)
    torch.save(MODELS.build(cfg.model).state_dict(), checkpoint)
    options = [f'test_dataloader.dataset.data_root={small_digits}', 'test_dataloader.num_workers=0',
               'test_dataloader.persistent_workers=False', 'log_level=ERROR']
    for name, keep in (('lean', False), ('stock', True)):
        done = run_tool('tools/test.py', SEGMENTATION, checkpoint, '--work-dir', tmp_path / name, '--show-dir',
                        tmp_path / name / 'pictures', '--out', tmp_path / name / 'labels', '--cfg-options', *options,
                        f'keep_seg_logits={keep}', f'experiment_name={tmp_path.name}{name}',
                        f'visualizer.name={tmp_path.name}{name}',  # mmengine keeps one of each name
                        'train_dataloader.dataset.data_root=not/here')  # a test does not need them
        assert done.returncode == 0, done.stderr
    lean, stock = (json.loads((tmp_path / name / 'scores.json').read_text()) for name in ('lean', 'stock'))
    for key in ('mIoU', 'aAcc', 'mAcc'):
        assert f'{lean[key]:.2f}' == f'{stock[key]:.2f}'
    labels = sorted((tmp_path / 'lean/labels').iterdir())
    assert len(labels) == 9
    for label in labels:
        assert label.read_bytes() == (tmp_path / 'stock/labels' / label.name).read_bytes()
    assert len(list((tmp_path / 'lean/pictures').rglob('*.png'))) == 9


# --- Waiting for data ------------------------------------------------------------------------------------


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.
        monkeypatch.setattr(data_stall.time, 'perf_counter', lambda: self.now)

    def batches(self, seconds: list[float]):
        for each in seconds:
            self.now += each
            yield each


def train(clock: Clock, reading: float, step: float, number: int = 60, **loader) -> list[str]:
    said: list[str] = []
    loop = types.SimpleNamespace(waiting=Waiting())
    runner = types.SimpleNamespace(
        train_loop=loop, cfg=dict(env_cfg=dict(mp_cfg=dict(opencv_num_threads=4))),
        logger=types.SimpleNamespace(warning=said.append, info=said.append),
        train_dataloader=types.SimpleNamespace(**dict(num_workers=1, persistent_workers=False) | loader))
    hook = WaitingHook()
    for i, _ in enumerate(loop.waiting.during(clock.batches([100.] + [reading] * (number - 1)))):
        hook.before_train_iter(runner, i)
        clock.now += step
        hook.after_train_iter(runner, i)
        clock.now += 7.  # other hooks: checkpoints, validation
    hook.after_train(runner)
    return said


def test_a_training_that_waits_says_so_once(monkeypatch):
    monkeypatch.setattr(data_stall.os, 'cpu_count', lambda: 8)
    said = train(Clock(monkeypatch), reading=.3, step=.7)
    assert len(said) == 2
    assert said[0].startswith('waiting for data: 30% of the time: more workers (train_dataloader.num_workers=8, now 1)')
    assert 'persistent_workers=True' in said[0] and 'opencv_num_threads=0 (now 4' in said[0]
    assert said[1] == 'waiting for data: 30% of the time'


def test_a_training_that_does_not_wait_says_nothing_but_the_share(monkeypatch):
    assert train(Clock(monkeypatch), reading=.1, step=.9) == ['waiting for data: 10% of the time']
    assert train(Clock(monkeypatch), reading=.5, step=.5, number=1) == []
