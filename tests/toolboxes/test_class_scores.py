"""Scores and numbers of each class, against the toolboxes' own figures and independent counts."""
import contextlib
import io
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_config
from mmengine.registry import DATASETS, METRICS, init_default_scope
from PIL import Image
from sklearn.metrics import precision_score, recall_score

from dwnet.inspect import confusion
from dwnet.toolboxes import enter_scope, toolbox_of
from dwnet.toolboxes.mmdet.coco import CheckedCocoMetric
from dwnet.toolboxes.mmpretrain.class_scores import AccuracyOfClasses
from dwnet.toolboxes.mmseg.lean import LeanIoUMetric

NANO = dict(classification='configs/classification/dwnet-nano_digits.py',
            detection='configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
            segmentation='configs/segmentation/upernet_dwnet-nano_digits.py')


@pytest.mark.parametrize('form', ['scores', 'labels'])
def test_a_classifier(form):
    """Class c is never true, and the model has a class more than the data name."""
    generator = np.random.default_rng(0)
    true, scores = generator.choice([0, 1, 3], 40), torch.tensor(generator.random((40, 4)))
    predicted = scores.argmax(1)
    results = [dict(gt_label=torch.tensor([label]), **(
        dict(pred_score=row) if form == 'scores' else dict(pred_label=row.argmax(0, keepdim=True))))
        for label, row in zip(true, scores)]
    metric, theirs = AccuracyOfClasses(topk=(1, )), AccuracyOfClasses.__base__(topk=(1, ))
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    assert metric.compute_metrics(results) == theirs.compute_metrics(results)
    found = metric.of_classes
    assert found['class'] == ['a', 'b', 'c', '3'] and found['images'] == np.bincount(true).tolist()
    expected = dict(recall=recall_score, precision=precision_score)
    for name, score in expected.items():
        each = (100 * score(true, predicted, average=None, labels=range(4), zero_division=0)).round(2).tolist()
        if name == 'recall':
            assert math.isnan(found[name][2])
            each[2] = found[name][2] = 0
        assert found[name] == each


def test_a_class_that_is_neither_there_nor_predicted_has_no_score():
    metric = AccuracyOfClasses()
    metric.dataset_meta = dict(classes='ab')
    metric.compute_metrics([dict(gt_label=torch.tensor([0]), pred_score=torch.tensor([.9, .1]))])
    assert metric.of_classes['images'] == [1, 0]
    assert [metric.of_classes[name][0] for name in ('recall', 'precision')] == [100, 100]
    assert all(math.isnan(metric.of_classes[name][1]) for name in ('recall', 'precision'))


def test_images_without_a_label_have_no_class():
    metric = AccuracyOfClasses()
    results = [dict(gt_label=torch.tensor([label]), pred_score=torch.tensor([.9, .1])) for label in (0, -1, 1)]
    metric.compute_metrics(results)
    assert metric.of_classes == {'class': ['0', '1'], 'images': [1, 1], 'recall': [100, 0], 'precision': [50, 0]}


@pytest.fixture
def detections(tmp_path) -> tuple[str, list]:
    """Annotations of three classes, of which one has no object, and predictions near them."""
    generator, annotations, results = np.random.default_rng(0), [], []
    for image in range(1, 9):
        boxes = []
        for _ in range(4):
            x, y, w, h = map(int, generator.integers(5, 40, 4))
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(dict(id=len(annotations) + 1, image_id=image, category_id=int(generator.integers(1, 3)),
                                    bbox=[x, y, w, h], area=w * h, iscrowd=0, segmentation=polygon))
            boxes.append([x + 1, y, x + w, y + h + int(generator.integers(0, 6))])
        masks = np.zeros((4, 100, 100), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes):
            mask[top:bottom, left:right - 2] = True
        from mmdet.structures.mask import encode_mask_results
        results.append((dict(width=100, height=100, img_id=image), dict(
            img_id=image, bboxes=np.array(boxes, float), scores=generator.random(4),
            labels=generator.integers(0, 3, 4), masks=encode_mask_results(masks))))
    content = dict(images=[dict(id=i, file_name=f'{i}.jpg', height=100, width=100) for i in range(1, 9)],
                   annotations=annotations, categories=[dict(id=i, name=name) for i, name in enumerate('xyz', 1)])
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(content))
    return str(path), results


def measured(metric, results) -> dict:
    metric.dataset_meta = dict(classes=('x', 'y', 'z'))
    with contextlib.redirect_stdout(io.StringIO()):
        return metric.compute_metrics(results)


@pytest.mark.parametrize('classwise', [False, True])
def test_a_detector(classwise, detections):
    """mmdet alone gives one score of a class, that of the masks, whatever else is measured."""
    init_default_scope('mmdet')
    path, results = detections
    theirs, kinds = CheckedCocoMetric.__base__, ['bbox', 'segm']
    metric = CheckedCocoMetric(ann_file=path, metric=kinds, classwise=classwise)
    expected = measured(theirs(ann_file=path, metric=kinds, classwise=classwise), results)
    found = measured(metric, results)
    assert list(found) == list(expected) and json.dumps(found) == json.dumps(expected)
    assert metric.metrics == kinds and metric.classwise == classwise
    annotations = json.loads(Path(path).read_text())['annotations']
    numbers = Counter(annotation['category_id'] for annotation in annotations)
    assert metric.of_classes['class'] == ['x', 'y', 'z'] and metric.of_classes['objects'] == [numbers[1], numbers[2], 0]
    for kind, column in zip(kinds, ('box AP', 'mask AP')):
        each = measured(theirs(ann_file=path, metric=kind, classwise=True), results)
        assert metric.of_classes[column][:2] == [each['x_precision'], each['y_precision']] != [0, 0]
        assert math.isnan(metric.of_classes[column][2])
    assert metric.of_classes['box AP'] != metric.of_classes['mask AP']


def test_objects_in_images_of_other_roots_are_not_missed(detections, tmp_path):
    init_default_scope('mmdet')
    path, results = detections
    content = json.loads(Path(path).read_text())
    content.update(images=content['images'][:4],
                   annotations=[object_ for object_ in content['annotations'] if object_['image_id'] < 5])
    (tmp_path / 'part.json').write_text(json.dumps(content))
    expected = measured(CheckedCocoMetric(ann_file=str(tmp_path / 'part.json')), results[:4])
    metric = METRICS.build(dict(type='dwnet.OfRoot', metric=dict(type='CheckedCocoMetric', ann_file=path), root='/a/',
                                name='a'))
    found = measured(metric, [*results[:4], *[None] * 4])
    assert found == {f'coco/{name}': score for name, score in expected.items()} and expected['bbox_mAP'] > 0
    assert metric.metric.of_classes['objects'][0] == sum(a['category_id'] == 1 for a in content['annotations'])


def test_a_detector_of_other_classes(detections):
    """COCO's evaluation of no class at all gives -1, and ends in no error."""
    init_default_scope('mmdet')
    path, results = detections
    metric = CheckedCocoMetric(ann_file=path)
    metric.dataset_meta = dict(classes=('other', ))
    with contextlib.redirect_stdout(io.StringIO()):
        metric.results = results
        assert metric.compute_metrics([(truth, {**found, 'bboxes': found['bboxes'][:0], 'scores': [], 'labels': []})
                                       for truth, found in results]) == {} and metric.of_classes == {}


def test_a_segmentor():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 3, (2, 5, 8, 8))
    true[:2][true[:2] == 2] = 1
    metric = LeanIoUMetric(iou_metrics=['mIoU', 'mFscore'])
    metric.dataset_meta = dict(classes=('a', 'b', 'c', 'd'))
    results = [LeanIoUMetric.intersect_and_union(torch.tensor(one), torch.tensor(other), 4, 255)
               for one, other in zip(predicted, true)]
    metric.compute_metrics(results)
    found, matrix = metric.of_classes, confusion.count(true, predicted, 4)
    hits = np.diag(matrix)[:3]
    assert found['class'] == ['a', 'b', 'c', 'd'] and found['images'] == [5, 5, 3, 0]
    for name, expected in dict(IoU=confusion.iou(matrix)[:3], recall=hits / matrix.sum(1)[:3],
                               precision=hits / matrix.sum(0)[:3]).items():
        assert found[name][:3] == (100 * expected).round(2).tolist() and math.isnan(found[name][3])


@pytest.mark.parametrize('task', NANO)
def test_images_and_objects_are_counted(task, small_digits):
    cfg = read_config(NANO[task])
    enter_scope(cfg)
    data = dict(cfg.train_dataloader.dataset, data_root=str(small_digits))
    dataset = DATASETS.build(dict(type='RepeatDataset', times=1, dataset=data) if task == 'segmentation' else data)
    found = toolbox_of(cfg).count_classes(dataset)
    if task == 'classification':
        folders = [small_digits / f'classification/train/{digit}' for digit in range(10)]
        assert found == dict(images=[len(list(folder.iterdir())) for folder in folders])
    elif task == 'detection':
        annotations = json.loads((small_digits / 'annotations/train.json').read_text())['annotations']
        ids = sorted({a['category_id'] for a in annotations})
        objects = Counter(a['category_id'] for a in annotations)
        images = Counter(category for _, category in {(a['image_id'], a['category_id']) for a in annotations})
        assert found == dict(images=[images[i] for i in ids], objects=[objects[i] for i in ids])
        assert found['images'] != found['objects']
    else:
        labels = [np.unique(Image.open(path)) for path in (small_digits / 'labels/train').iterdir()]
        assert found == dict(images=np.bincount(np.concatenate(labels), minlength=11).tolist())
