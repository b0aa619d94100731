"""The numbers behind the pictures agree with other sources: scikit-learn, pycocotools, mmseg, real trainings."""
import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import read_config, run_tool
from matplotlib.text import Text
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import average_precision_score, confusion_matrix, jaccard_score
from torch import nn

from dwnet import DWNet
from dwnet.apis import init_model
from dwnet.commands.options.running import enable_log_to
from dwnet.engine import Runner
from dwnet.errors import UserError
from dwnet.inspect import (
    analysis,
    cam,
    coco_errors,
    confusion,
    curves,
    kernels,
    precision_recall,
    receptive_field,
    schedule,
)
from dwnet.inspect.batch import browse
from dwnet.inspect.figure import contact_sheet, new_figure, save
from dwnet.inspect.samples import draw, make_visualizer, to_picture
from dwnet.inspect.show import ShowHook
from dwnet.ops import dynamic_depthwise_conv2d, inhomogeneous_depthwise_conv2d

CLASSIFICATION = 'configs/classification/dwnet-nano_digits.py'
DETECTION = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'
SEGMENTATION = 'configs/segmentation/upernet_dwnet-nano_digits.py'
NANO = dict(embed_dims=32, depths=(1, 1, 2, 1))


# curves

def write_log(folder, records):
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data/scalars.json').write_text(''.join(json.dumps(r) + '\n' for r in records))


def train(step, epoch=None, **values):
    return dict(loss=100. / step, lr=.1, **values, iter=step, step=step, **({} if epoch is None else dict(epoch=epoch)))


def test_a_resumed_run_counts_once(tmp_path):
    """Killed in epoch 3 and resumed from the end of epoch 1: steps 25 to 50 and the validation of epoch 2 are new."""
    write_log(tmp_path / '20260101_000000', [train(10, 1), train(20, 1), dict(mIoU=30., step=1), train(30, 2),
                                             train(40, 2), dict(mIoU=40., step=2), train(50, 3)])
    write_log(tmp_path / '20260102_000000', [train(25, 2, time=.5), train(35, 2)])
    run = curves.read_run(tmp_path)
    assert list(run.training['loss']) == [10, 20, 25, 35] and run.training['loss'][25] == 4.
    assert run.validation['mIoU'] == {1: 30.} and run.by_epoch and run.training['time'] == {25: .5}
    write_log(tmp_path / '20260103_000000', [dict(mIoU=41., step=2), train(50, 3), dict(mIoU=42., step=3)])
    run = curves.read_run(tmp_path)
    assert run.validation['mIoU'] == {1: 30., 2: 41., 3: 42.} and list(run.training['loss'])[-2:] == [35, 50]


def test_iterations_are_kept_apart_from_epochs(tmp_path):
    write_log(tmp_path / 'a', [train(500), dict(mIoU=30., step=500), train(1000), dict(mIoU=35., step=1000)])
    write_log(tmp_path / 'b', [train(600), dict(mIoU=36., step=1000)])
    run = curves.read_run(tmp_path)
    assert run.validation['mIoU'] == {500: 30., 1000: 36.} and not run.by_epoch
    assert list(run.training['loss']) == [500, 600]


def test_curves_are_drawn_as_logged(tmp_path):
    write_log(tmp_path / 'a/t', [train(10, 1, data_time=.1, time=.3), dict(mIoU=30., step=1, time=9.)])
    write_log(tmp_path / 'b/t', [train(10, 1), train(20, 2)])
    figure = curves.plot([curves.read_run(tmp_path / name) for name in 'ab'])
    drawn = {axes.get_title(): [line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes}
    assert drawn['training loss'] == [[[10, 10]], [[10, 10], [20, 5]]]
    assert drawn['mIoU'] == [[[1, 30]], []]
    assert drawn['time of an iteration (filled: waiting for data)'][0] == [[10, .3]], 'not that of the validation'
    write_log(tmp_path / 'c/t', [dict(pck=30., step=1), dict(pck=40., step=2)])  # scores of another kind
    axes, = curves.plot([curves.read_run(tmp_path / 'c')]).axes
    assert axes.get_title() == 'pck' and axes.lines[0].get_xydata().tolist() == [[1, 30], [2, 40]]


@pytest.mark.parametrize('epochs, expected', [
    ([(10, 1), (20, 2), (30, 3)], {10: 3., 30: 2.}),
    # epochs of 12 steps, of which the log has the fifth and the tenth
    ([(5, 1), (10, 1), (17, 2), (22, 2), (29, 3), (34, 3)], {12: 3., 36: 2.}),
    ([(10, None), (20, None)], {1: 3., 3: 2.})])
def test_the_loss_of_the_validation_is_beside_that_of_the_training(epochs, expected, tmp_path):
    logged = [{'val/loss': 3., 'mIoU': 1., 'step': 1}, {'val/loss': 2., 'mIoU': 2., 'step': 3}]
    write_log(tmp_path / 't', [*(train(*at) for at in epochs), *logged])
    run = curves.read_run(tmp_path)
    assert run.validation_loss == expected and list(run.training['loss']) == [step for step, _ in epochs]
    axes = curves.plot([run]).axes[0]
    assert axes.get_title() == 'loss (dashed: on the validation set)' and len(axes.lines) == 2
    assert axes.lines[1].get_xydata().tolist() == [[at, loss] for at, loss in expected.items()]
    assert axes.lines[1].get_linestyle() == '--'


def test_mistakes_with_logs_end_in_one_line(tmp_path):
    (tmp_path / 'x.json').write_text('[1, 2]')
    write_log(tmp_path / 'run', [train(10)])
    for arguments, message in (
            ([tmp_path / 'none'], 'holds no log'), ([tmp_path / 'x.json'], 'is no log of a training'),
            ([tmp_path / 'run', '--keys', 'los'], 'no log has los; they have loss, lr')):
        done = run_tool('tools/plot_log.py', *arguments)
        assert done.returncode == 2 and message in done.stderr
    done = run_tool('tools/plot_log.py', tmp_path / 'run')
    assert done.returncode == 0 and (tmp_path / 'run/curves.png').is_file()


# learning rate

@MODELS.register_module()
class TwoLayers(BaseModel):

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        y = self.second(self.first(torch.stack(list(x))))
        return dict(loss=y.square().mean()) if mode == 'loss' else [y]


class Rates(Hook):

    priority = 'VERY_HIGH'

    def __init__(self):
        self.values = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.values.append(sorted({group['lr'] for group in runner.optim_wrapper.optimizer.param_groups}, reverse=True))


@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_learning_rate_is_that_of_a_real_training(by_epoch, tmp_path):
    train_cfg = dict(by_epoch=True, max_epochs=6) if by_epoch else dict(by_epoch=False, max_iters=18)
    second = dict(type='CosineAnnealingLR', by_epoch=by_epoch, eta_min=1e-4, begin=0)
    third = dict(type='MultiStepLR', by_epoch=by_epoch, milestones=[4] if by_epoch else [12])
    cfg = Config(dict(
        default_scope='mmengine', model=dict(type='TwoLayers'), train_cfg=train_cfg, work_dir=str(tmp_path),
        train_dataloader=dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1),
                           paramwise_cfg=dict(custom_keys={'first': dict(lr_mult=.1)})),
        param_scheduler=[dict(type='LinearLR', start_factor=.01, by_epoch=False, end=4),
                         dict(second, convert_to_iter_based=by_epoch), third],
        experiment_name=f'rates{by_epoch}'))
    found = schedule.learning_rates(cfg, 3)
    cfg.train_dataloader.dataset = [dict(x=torch.ones(2) * i) for i in range(6)]
    runner = Runner.from_cfg(cfg)
    runner.register_hook(rates := Rates())
    runner.train()
    assert len(rates.values) == 18 and list(found) == pytest.approx([.1, .01])
    assert np.allclose(np.array(list(found.values())).T, rates.values, rtol=1e-9)
    assert len({round(lr, 9) for lr in found[.1]}) > 10


@pytest.mark.long
def test_the_published_recipe_needs_no_data(tmp_path):
    config = 'configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py'
    picture = tmp_path / 'lr.png'
    done = run_tool('tools/plot_lr.py', config, '--out', picture, '--cfg-options', 'train_cfg.max_iters=3000')
    assert done.returncode == 0 and '3000 steps: from 6e-11 to at most' in done.stdout and picture.is_file()


# confusion and precision

def test_confusion_matrix_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 7, (2, 30, 40))
    truth[:3] = 255
    known = truth != 255
    matrix = confusion.count(truth, predicted, 8)
    assert (matrix == confusion_matrix(truth[known], predicted[known], labels=range(8))).all() and matrix.sum() == 1080
    expected = jaccard_score(truth[known], predicted[known], average=None, labels=range(7))
    assert np.allclose(confusion.iou(matrix)[:7], expected) and np.isnan(confusion.iou(matrix)[7])
    texts = [t.get_text() for t in confusion.plot(matrix, 'abcdefgh', 'abcdefgh', '').axes[0].texts]
    assert texts[0] == f'{100 * matrix[0, 0] / matrix[0].sum():.0f}'


@pytest.mark.parametrize('wrong', [3, 12, -1, 255])
def test_a_prediction_beyond_the_classes_is_named(wrong):
    """Counted by arithmetic alone, it would be in another class's cell."""
    truth, predicted = np.array([[0, 1], [2, 255]]), np.array([[0, wrong], [2, 1]])
    with pytest.raises(UserError, match=f'class {wrong} is predicted, but the data has 3 classes, 0 to 2'):
        confusion.count(truth, predicted, 3)
    matrix = confusion.count(truth, np.array([[0, 1], [2, wrong]]), 3)
    assert (matrix == np.eye(3)).all(), 'where the truth is no class, the prediction does not matter'


@pytest.mark.parametrize('classes', [1, 2, 200])
@pytest.mark.parametrize('images', [0, 1, 50])
def test_pictures_of_few_images_and_many_classes(images, classes, tmp_path):
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, classes, images), generator.random((images, classes))
    names = [f'$\\x {i}' + '$' * (i % 2) for i in range(classes)]  # no mathematics that matplotlib could read
    matrix = confusion.count(labels, scores.argmax(1), classes)
    for figure in (confusion.plot(matrix, names, names, ''), precision_recall.plot(labels, scores, names),
                   confusion.plot_bars({'IoU': 100 * confusion.iou(matrix)}, names, '', '')):
        save(figure, tmp_path / 'x.png')


def test_names_are_drawn_as_they_are(tmp_path):
    name, picture = '$\\x$ a_1$.jpg', np.zeros((5, 5, 3), np.uint8)
    run = curves.Run(name, training={'loss': {1: float('nan'), 2: 1.}, '$k': {1: 2.}})
    kernel = [[torch.full((1, 4, 7, 7), torch.nan)]]
    for figure in (contact_sheet([picture], [name], title=name), curves.plot([run]), curves.plot([run, run], ['$k']),
                   kernels.plot(kernel, [picture], [name], 'static')):
        save(figure, tmp_path / 'x.png')
    texts = [text.get_text() for text in contact_sheet([picture], [name]).findobj(Text)]
    assert name.replace('$', r'\$') in texts


def test_a_test_of_folders_with_the_same_names_shows_all_images(tmp_path):
    runner = SimpleNamespace(cfg=read_config(CLASSIFICATION), test_dataloader=SimpleNamespace(
        dataset=SimpleNamespace(metainfo=dict(classes=('a', 'b')))))
    hook, shown = ShowHook(str(tmp_path / 'shown')), []
    for name in 'abc':
        (tmp_path / name).mkdir()
        Image.new('RGB', (30, 30)).save(tmp_path / name / '0.png')
        shown.append(DataSample(metainfo=dict(img_path=str(tmp_path / name / '0.png'))).set_gt_label(0).set_pred_label(
            1).set_pred_score(torch.tensor([.1, .9])))
    hook.before_test(runner)
    for i, samples in enumerate((shown[:2], shown[2:])):
        hook.before_test_iter(runner, i)
        hook.after_test_iter(runner, i, None, samples)
    assert sorted(path.name for path in hook.folder.iterdir()) == ['0.png_0.png', '0.png_1.png', '0.png_2.png']


def test_strips_make_no_endless_sheet(tmp_path):
    strips = [np.zeros((2000, 3, 3), np.uint8), np.zeros((3, 2000, 3), np.uint8)]
    width, height = Image.open(save(contact_sheet(strips, 'ab'), tmp_path / 'x.png')).size
    assert height <= 5 * width


def test_average_precision_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 4, 50), generator.random((50, 5))
    found = precision_recall.average_precisions(labels, scores)
    assert np.isnan(found[4])
    assert np.allclose(found[:4], average_precision_score(np.eye(4)[labels], scores[:, :4], average=None))
    precision_recall.plot(labels, scores, 'abcde')


def coco(boxes_of_images, categories=3, family=None):
    """[[(category, x, y, w, h), …], …] → annotations of images of 200×200."""
    annotations = []
    for image, boxes in enumerate(boxes_of_images, 1):
        for category, *box in boxes:
            x, y, w, h = map(int, box)
            mask = np.zeros((200, 200), np.uint8, order='F')
            mask[y:y + h, x:x + w] = 1
            rle = coco_mask.encode(mask)
            annotations.append(dict(id=len(annotations) + 1, image_id=image, category_id=category, bbox=box, iscrowd=0,
                                    area=int(mask.sum()), segmentation=dict(rle, counts=rle['counts'].decode())))
    result = COCO()
    result.dataset = dict(
        images=[dict(id=i, height=200, width=200) for i in range(1, len(boxes_of_images) + 1)], annotations=annotations,
        categories=[dict(id=c, name=str(c), **({} if family is None else dict(supercategory=family[c - 1])))
                    for c in range(1, categories + 1)])
    with contextlib.redirect_stdout(io.StringIO()):
        result.createIndex()
    return result


def found_in(truth, detections):
    """[(image, category, score, x, y, w, h), …]"""
    with contextlib.redirect_stdout(io.StringIO()):
        return truth.loadRes([dict(image_id=i, category_id=c, score=s, bbox=list(box)) for i, c, s, *box in detections])


def test_coco_curves_and_parts_are_those_of_pycocotools():
    generator = np.random.default_rng(0)
    truth = coco([[(generator.integers(1, 4), *generator.integers(5, 90, 4)) for _ in range(6)] for _ in range(8)])
    detections = []
    for a in truth.dataset['annotations']:  # moved a little, some of another class, some twice
        for _ in range(2):
            category = a['category_id'] if generator.random() < .8 else generator.integers(1, 4)
            moved = np.array(a['bbox']) + generator.integers(-6, 7, 4)
            detections.append((a['image_id'], int(category), float(generator.random()), *map(float, moved.clip(1))))
    found = found_in(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        plain = COCOeval(truth, found, 'bbox')
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    parts = coco_errors.breakdown(truth, found, 'bbox')
    of_all = np.nanmean(parts[..., 0], axis=(1, 2))
    assert of_all[0] == pytest.approx(plain.stats[2]) and of_all[1] == pytest.approx(plain.stats[1])
    assert (np.diff(of_all) >= 0).all() and of_all[-1] == 1 and 0 < of_all[0] < of_all[2] < of_all[4] < 1
    assert of_all[3] == of_all[2], 'no class is similar to another'
    figure = coco_errors.plot_curves(coco_errors.evaluate(truth, found, 'bbox'), '')
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[0] == f'0.50: {100 * plain.stats[1]:.1f}'


def test_each_mistake_is_in_its_part():
    """One object an image: found, badly placed, taken for a similar class, for another, nothing but background."""
    box = (50, 50, 40, 40)
    truth = coco([[(1, *box)]] * 5, family=['x', 'x', 'y'])
    def parts(category, *of_detection, background=False):
        detections = [(i, category, .5, *of_detection) for i in range(1, 6)]
        detections += [(i, 1, .9, 150, 150, 20, 20) for i in range(1, 6)] * background
        if category != 1:  # behind what was taken for the class
            detections = [(i, 1, .6, *of_detection) for i in range(1, 6)] + detections
        return np.nanmean(coco_errors.breakdown(truth, found_in(truth, detections), 'bbox')[:, :, 0, 0], axis=1)

    assert parts(1, *box).tolist() == [1] * 7
    assert parts(1, 50, 50, 40, 24).tolist() == [0, 1, 1, 1, 1, 1, 1]  # an IoU of 0.6
    assert parts(1, 50, 50, 40, 10).tolist() == [0, 0, 1, 1, 1, 1, 1]  # of 0.25
    with_background = parts(1, *box, background=True)
    assert with_background[4] == with_background[0] < 1 == with_background[5]
    for category, gains in ((2, 3), (3, 4)):  # objects of another class, taken for class 1
        mixed = coco([[(1, *box), (category, 120, 50, 40, 40)]] * 5, family=['x', 'x', 'y'])
        detections = [(i, 1, score, x, 50, 40, 40) for i in range(1, 6) for x, score in ((50, .5), (120, .9))]
        found = np.nanmean(coco_errors.breakdown(mixed, found_in(mixed, detections), 'bbox')[:, :, 0, 0], axis=1)
        assert found[gains - 1] < 1 and found[gains:].tolist() == [1] * (7 - gains)


def test_confusion_of_detections_is_counted():
    truth = coco([[(1, 10, 10, 40, 40), (2, 100, 100, 40, 40)], [(3, 10, 10, 40, 40)], []])
    found = found_in(truth, [
        (1, 1, .9, 10, 10, 40, 40), (1, 3, .8, 102, 100, 40, 40), (1, 3, .7, 10, 150, 20, 20),
        (2, 3, .2, 10, 10, 40, 40), (3, 2, .6, 5, 5, 9, 9)])
    expected = np.zeros((4, 4), int)
    expected[0, 0] = 1  # right
    expected[1, 2] = 1  # 2 taken for 3
    expected[3, 2] = expected[3, 1] = 1  # on the background
    expected[2, 3] = 1  # missed: its score is too low
    assert (coco_errors.confusion(truth, found, 'bbox') == expected).all()


def test_analysis_has_the_scores_and_counts_of_the_test(small_digits, tmp_path, monkeypatch):
    torch.manual_seed(1)
    weights = tmp_path / 'w.pth'
    torch.save(dict(state_dict=init_model(read_config(SEGMENTATION)).state_dict()), weights)
    seen = []
    plot = confusion.plot
    monkeypatch.setattr(confusion, 'plot', lambda matrix, *rest: seen.append(matrix) or plot(matrix, *rest))
    done = run_tool('tools/analyze.py', SEGMENTATION, weights, '--work-dir', tmp_path, '--number', 2, '--cfg-options',
                    f'test_dataloader.dataset.data_root={small_digits}', 'test_dataloader.num_workers=0',
                    'test_dataloader.persistent_workers=False', 'experiment_name=analysis')
    assert done.returncode == 0, done.stderr
    page = (tmp_path / 'analysis/analysis.html').read_text()
    score = float(re.search(r'<td>mIoU<td class=number>([\d.]+)', page)[1])
    assert seen[0].sum() == 9 * 128 * 128 and page.count('<img ') == 3
    assert 100 * np.nanmean(confusion.iou(seen[0])) == pytest.approx(score, abs=.006)


def test_analysis_counts_each_image_once_although_one_is_damaged(small_digits, tmp_path, monkeypatch):
    """The test begins again without the image."""
    root = Path(shutil.copytree(small_digits, tmp_path / 'digits'))
    image = sorted((root / 'scenes/test').iterdir())[1]
    image.write_bytes(image.read_bytes()[:-40])
    cfg, seen = read_config(SEGMENTATION), []
    torch.save(dict(state_dict=init_model(cfg).state_dict()), tmp_path / 'w.pth')
    cfg.merge_from_dict({'test_dataloader.dataset.data_root': str(root), 'test_dataloader.num_workers': 0,
                         'test_dataloader.persistent_workers': False, 'load_from': str(tmp_path / 'w.pth'),
                         'work_dir': str(tmp_path), 'experiment_name': 'damaged'})
    monkeypatch.setattr(confusion, 'plot', lambda matrix, *rest: seen.append(matrix) or new_figure(1, 1))
    analysis.analyze(cfg, tmp_path / 'analysis', number=2)
    assert seen[0].sum() == 8 * 128 * 128


@pytest.fixture
def classes_task(tmp_path):
    """The analysis of a classifier of three classes, of which the data name two."""
    task = analysis._Classes(read_config(CLASSIFICATION), tmp_path, 2, .3)
    task.begin(Images(5, classes=('a', 'b')))
    return task


class Images(list):

    def __init__(self, length, **metainfo):
        super().__init__(range(length))
        self.metainfo = metainfo


def classified(label, scores):
    return DataSample(metainfo=dict(img_path='x.jpg')).set_gt_label(label).set_pred_score(torch.tensor(scores))


def test_analysis_of_more_classes_than_are_named(classes_task, monkeypatch):
    monkeypatch.setattr(classes_task, 'pairs', lambda: ())
    monkeypatch.setattr(classes_task, 'read', lambda path: np.zeros((4, 4, 3), np.uint8))
    for label in (0, 1, 2, 2):
        classes_task.count(classified(label, [.1, .2, .7]))
    assert [path.name for *_, path in classes_task.finish()[:4]] == [
        'confusion.png', 'classes.png', 'precision_recall.png', 'mistakes.png']


@pytest.mark.parametrize('label, scores, message', [
    (3, [.1, .2, .7], 'x.jpg is of class 3, and the model has 3, 0 to 2'),
    (0, [.1, float('nan'), .7], 'values that are not finite')])
def test_what_cannot_be_analysed_is_named(label, scores, message, classes_task):
    with pytest.raises(UserError, match=message):
        classes_task.count(classified(label, scores))


@pytest.mark.parametrize('function', [
    lambda cfg, path: analysis.analyze(cfg, path, number=0), lambda cfg, path: browse(cfg, number=0)])
def test_no_image_is_not_drawn(function, tmp_path):
    with pytest.raises(UserError, match='number 0: it has to be 1 or more'):
        function(read_config(CLASSIFICATION), tmp_path)


def test_data_without_images_or_names(tmp_path):
    for task, length, message in ((analysis._Classes, 0, 'are empty'), (analysis._Segments, 3, 'name no classes')):
        with pytest.raises(UserError, match=message):
            task(read_config(SEGMENTATION), tmp_path, 2, .3).begin(Images(length))


def test_analysis_leaves_the_config_as_it_is(tmp_path, monkeypatch):
    cfg = read_config(DETECTION)
    before = cfg.pretty_text
    monkeypatch.setattr(analysis.Runner, 'from_cfg', lambda cfg: (_ for _ in ()).throw(InterruptedError()))
    with pytest.raises(InterruptedError):
        analysis.analyze(cfg, tmp_path)
    assert cfg.pretty_text == before


# data

@pytest.mark.parametrize('config', [CLASSIFICATION, DETECTION, SEGMENTATION])
def test_what_the_network_gets_is_shown_as_it_was(config):
    cfg = read_config(config)
    image = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)  # BGR, as it is read
    preprocessor = init_model(cfg).data_preprocessor
    inputs = preprocessor(dict(inputs=[image]), False)['inputs'][0]
    assert (to_picture(inputs, preprocessor) == image.permute(1, 2, 0).numpy()[..., ::-1]).all()


@pytest.mark.parametrize('config', [
    CLASSIFICATION, *(pytest.param(c, marks=pytest.mark.long) for c in (DETECTION, SEGMENTATION))])
def test_browsing(config, small_digits, tmp_path):
    done = run_tool('tools/browse_dataset.py', config, '--number', 3, '--out', tmp_path / 'sheet.png',
                    '--cfg-options', f'train_dataloader.dataset.data_root={small_digits}')
    assert done.returncode == 0 and (tmp_path / 'sheet.png').stat().st_size > 20_000, done.stderr


def test_a_label_map_is_drawn_in_its_colours():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    cfg = read_config(SEGMENTATION)
    visualizer = make_visualizer(cfg, dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 0]]), 'test')
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, :32] = 1
    drawn = draw(visualizer, np.zeros((64, 64, 3), np.uint8), SegDataSample(gt_sem_seg=PixelData(data=labels)), True)
    assert drawn.shape == (256, 256, 3)
    # six tenths of the colour; the row at the edge is as matplotlib rounds
    assert (drawn[100:126, :100] == [153, 0, 0]).all() and not drawn[130:, :100].any()


# networks

def test_receptive_field_ends_where_the_theory_says():
    """A block of 7×7 at stride s adds 6·s pixels, a patch merging its stride: 28 pixels, then 80."""
    backbone = DWNet(NANO).eval()
    images = [torch.randn(1, 3, 128, 128) for _ in range(2)]
    fields = receptive_field.effective_receptive_field(backbone, images, ['stages.0', 'stages.1'])
    for field, side in zip(fields.values(), (28, 80)):
        for axis in (0, 1):
            touched = np.flatnonzero(field.sum(axis))
            assert touched[-1] - touched[0] + 1 == side
        assert field.sum() == pytest.approx(1) and receptive_field.side_of(field, .5) < side
    receptive_field.plot(fields, '')


def test_a_receptive_field_that_is_none_is_named():
    model = nn.ModuleDict(dict(backbone=DWNet(NANO).eval(), neck=nn.Conv2d(3, 3, 1)))
    with pytest.raises(UserError, match='^neck: no finite gradient'):
        receptive_field.effective_receptive_field(model, [torch.randn(1, 3, 64, 64)], ['backbone.stages.0', 'neck'])
    nn.init.constant_(model['backbone'].patch_embed.proj.weight, torch.nan)
    with pytest.raises(UserError, match=r'backbone.stages.0: no finite gradient reaches the image'):
        receptive_field.effective_receptive_field(model, [torch.randn(1, 3, 64, 64)], ['backbone.stages.0'])


def test_looking_at_kernels_leaves_a_training_as_it_is():
    model = DWNet(NANO, 'dynamic').train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert kernels.kernels(model, torch.randn(2, 3, 64, 64))[0].shape == (2, 32, 7, 7)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_receptive_field_of_a_symmetric_network_is_symmetric():
    net = nn.Sequential(nn.Conv2d(3, 2, 5, padding=2), nn.Conv2d(2, 4, 3, padding=1))
    for layer in net:
        nn.init.ones_(layer.weight)
    fields = receptive_field.effective_receptive_field(net, [torch.randn(1, 3, 31, 31)], ['0', '1'])
    first, second = fields.values()
    assert np.allclose(first[13:18, 13:18], 1 / 25) and first.sum() == pytest.approx(1)
    assert np.allclose(second, second[::-1]) and np.allclose(second, second[:, ::-1]) and np.allclose(second, second.T)
    assert receptive_field.side_of(first, .99) == 5 and receptive_field.side_of(first, .35) == 3


@pytest.mark.parametrize('mixer', ['static', 'dynamic', 'inhomogeneous', 'local_mlp'])
def test_kernels_are_those_that_are_applied(mixer):
    backbone = DWNet(NANO, mixer).eval()
    for module in backbone.modules():  # so that predicted kernels differ between images
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -.1, .1)
    images = torch.randn(2, 3, 64, 64)
    spatial = getattr(backbone.stages[1].blocks[-1].mixer, 'spatial', None)
    seen = []
    if spatial is not None:
        spatial.register_forward_hook(lambda m, args, y: seen.append((args[0].clone(), y.clone())))
    found = kernels.kernels(backbone, images)
    assert len(found) == 4
    if mixer == 'local_mlp':
        assert [tuple(k.shape) for k in found] == [(2, 2**i, 7, 7) for i in range(4)]
        return
    (x, y), kernel = seen[-1], found[1]
    if mixer == 'inhomogeneous':
        again = inhomogeneous_depthwise_conv2d(x, kernel)
    else:
        again = dynamic_depthwise_conv2d(x, kernel, spatial.bias)
        assert torch.equal(kernel[0], kernel[1]) == (mixer == 'static')
    assert torch.allclose(torch.relu(again), torch.relu(y), atol=1e-5)
    kernels.plot([kernels.kernels(backbone, image[None]) for image in images], [np.zeros((9, 9, 3), np.uint8)] * 2,
                 ['a', 'b'], mixer)


def test_grad_cam_is_its_formula():
    torch.manual_seed(0)
    model = init_model(read_config(CLASSIFICATION))
    image = torch.randn(1, 3, 64, 64)
    maps, category = cam.class_activation(model, image, ['backbone.stages.1'])
    assert category == int(model(image, mode='tensor').argmax())
    kept = []
    handle = model.backbone.stages[1].register_forward_hook(lambda m, a, y: kept.append(y) or y.retain_grad())
    model(image, mode='tensor')[0, category].backward()
    handle.remove()
    weights = kept[0].grad.mean((2, 3), keepdim=True)
    heat = torch.relu((weights * kept[0]).sum(1))[0].detach()
    assert maps['backbone.stages.1'].shape == (64, 64)
    small = nn.functional.adaptive_avg_pool2d(torch.as_tensor(maps['backbone.stages.1'])[None], 8)[0]
    assert np.corrcoef(small.flatten(), heat.flatten())[0, 1] > .95
    other, category = cam.class_activation(model, image, ['backbone.stages.1'], (category + 1) % 10)
    assert not np.allclose(other['backbone.stages.1'], maps['backbone.stages.1'], atol=.05)
    with pytest.raises(UserError, match='there is no class 10: the model has 10'):
        cam.class_activation(model, image, (), 10)
    with pytest.raises(UserError, match='the model has no layer backbone.nothing; it has .*backbone.stages.0'):
        cam.class_activation(model, image, ['backbone.nothing'])


def test_grad_cam_of_frozen_stages():
    cfg = read_config(CLASSIFICATION)
    cfg.model.backbone.frozen_stages = 2
    model = init_model(cfg)
    model.train()
    model.eval()
    assert not any(p.requires_grad for p in model.backbone.stages[0].parameters())
    image = torch.randn(1, 3, 64, 64)
    maps, category = cam.class_activation(model, image, ['backbone.stages.0'])
    model.requires_grad_(True)
    expected, _ = cam.class_activation(model, image, ['backbone.stages.0'], category)
    assert np.allclose(maps['backbone.stages.0'], expected['backbone.stages.0'], atol=1e-5)


def test_an_image_that_cannot_be_read_costs_no_other(small_digits, tmp_path):
    whole = sorted((small_digits / 'classification/test').rglob('*.jpg'))[0]
    (tmp_path / 'broken.jpg').write_bytes(whole.read_bytes()[:40])
    look = ['tools/look.py', 'cam', '--config', CLASSIFICATION, '--device', 'cpu']
    done = run_tool(*look, whole, tmp_path / 'broken.jpg', '--out', tmp_path / 'some')
    assert done.returncode == 2 and f'- {tmp_path}/broken.jpg: ' in done.stderr
    assert (tmp_path / 'some/cam.png').stat().st_size > 5_000
    done = run_tool(*look, tmp_path / 'broken.jpg', '--out', tmp_path / 'none')
    assert done.returncode == 2 and 'images could not be read:' in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'none').exists()
    done = run_tool(*look, whole, '--number', 0)
    assert done.returncode == 2 and '--number 0: it has to be 1 or more' in done.stderr


def test_a_picture_has_the_name_that_is_returned(tmp_path):
    for name, expected in (('curve', 'curve.png'), ('curve.svg', 'curve.svg')):
        assert save(new_figure(1, 1), tmp_path / name) == tmp_path / expected
        assert (tmp_path / expected).is_file()


@pytest.mark.long
def test_looking_at_a_dense_model(small_digits, tmp_path):
    scene = sorted((small_digits / 'scenes/test').glob('*.jpg'))[0]
    for what, config in (('cam', SEGMENTATION), ('cam', DETECTION), ('receptive-field', SEGMENTATION)):
        done = run_tool('tools/look.py', what, scene, '--config', config, '--out', tmp_path, '--device', 'cpu')
        assert done.returncode == 0, done.stderr
        assert 'the network is as it is initialised' in done.stdout
    assert (tmp_path / 'cam.png').stat().st_size > 20_000 and (tmp_path / 'receptive_field.png').is_file()


# other places

def test_curves_go_to_tensorboard_as_well(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    cfg = Config(dict(
        default_scope='mmengine', model=dict(type='TwoLayers'), train_cfg=dict(by_epoch=True, max_epochs=2),
        train_dataloader=dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)), work_dir=str(tmp_path), experiment_name='tensorboard',
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1))))
    enable_log_to(cfg, ['tensorboard'])
    enable_log_to(cfg, ['tensorboard'])
    assert [b['type'] for b in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    cfg.train_dataloader.dataset = [dict(x=torch.ones(2) * i) for i in range(6)]
    Runner.from_cfg(cfg).train()
    events = EventAccumulator(str(next(tmp_path.rglob('events.*')).parent))
    events.Reload()
    run = curves.read_run(tmp_path)
    assert {e.step: pytest.approx(e.value) for e in events.Scalars('loss')} == run.training['loss']
    assert len(run.training['loss']) == 6


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='--log-to wandb: the package wandb is missing: pip install wandb'):
        enable_log_to(Config(dict()), ['wandb'])


@pytest.mark.parametrize('tool', ['infer', 'plot_log', 'plot_lr', 'browse_dataset', 'analyze', 'look'])
def test_help_has_an_example(tool, capsys):
    assert 'example: ' in run_tool(f'tools/{tool}.py', '--help').stdout
