"""Several data roots: the scores of all, and of each alone, are those of a test of these images alone."""
import copy

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS, init_default_scope

import dwnet  # noqa: F401
from dwnet.toolboxes.base import with_metric


def samples_of(task: str, root: str, number: int, generator: torch.Generator) -> list[dict]:
    """Predictions with ground truth, as a Runner hands them to metrics."""
    def random(most: int, *shape: int) -> torch.Tensor:
        return torch.randint(most, shape, generator=generator)

    if task == 'classification':
        return [dict(img_path=f'{root}/{i}.jpg', pred_score=torch.rand(3, generator=generator), pred_label=random(3, 1),
                     gt_label=random(3, 1)) for i in range(number)]
    return [dict(img_path=f'{root}/{i}.jpg', pred_sem_seg=dict(data=random(3, 1, 8, 8)),
                 gt_sem_seg=dict(data=random(3, 1, 8, 8)))
            for i in range(number)]


@pytest.mark.parametrize('task, metric', [
    ('classification', dict(type='mmpretrain.Accuracy', topk=(1, ))),
    ('segmentation', dict(type='mmseg.IoUMetric', iou_metrics=['mIoU']))])
def test_each_root_has_the_scores_of_its_images(task, metric):
    init_default_scope(metric['type'].partition('.')[0])
    generator = torch.Generator().manual_seed(0)
    of_root = {root: samples_of(task, f'/data/{root}', 6, generator) for root in ('one', 'one_more')}
    everything = [sample for pair in zip(*of_root.values()) for sample in pair]
    meta = dict(classes=list('abc'))
    for root, samples in of_root.items():
        alone = METRICS.build(copy.deepcopy(metric))
        apart = METRICS.build(dict(type='dwnet.OfRoot', metric=metric, root=f'/data/{root}/', name=root))
        alone.dataset_meta = apart.dataset_meta = meta
        for i in range(0, 12, 4):
            apart.process({}, everything[i:i + 4])
        alone.process({}, samples)
        expected, scores = alone.evaluate(6), apart.evaluate(12)
        assert expected and scores.keys() == {f'{root}/{name}' for name in expected}
        for name, score in expected.items():
            assert np.isclose(scores[f'{root}/{name}'], score, equal_nan=True)


def test_metrics_inside_are_replaced_too():
    from mmseg.evaluation import IoUMetric
    inner = dict(type='dwnet.OfRoot', metric=dict(type='mmseg.IoUMetric'), root='/', name='a')
    assert with_metric([inner], IoUMetric, dict)[0]['metric']['type'] is dict
