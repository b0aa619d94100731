"""The stand-in for panopticapi: colours, scores by hand, and mmdet's metric of panoptic segmentation on it."""
import json
from pathlib import Path

import numpy as np
import published_data
import pytest
import torch
from mmdet.datasets import CocoPanopticDataset
from mmdet.evaluation import CocoPanopticMetric
from panopticapi.evaluation import PQStat
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image

import dwnet  # noqa: F401  finds the stand-in


def test_colours_are_ids_in_base_256():
    ids = np.array([[0, 255, 256], [65536, 66051, 256**3 - 1]])
    assert id2rgb(ids).tolist() == [[[0, 0, 0], [255, 0, 0], [0, 1, 0]], [[0, 0, 1], [3, 2, 1], [255, 255, 255]]]
    assert id2rgb(ids).dtype == np.uint8 and (rgb2id(id2rgb(ids)) == ids).all()


def test_scores_by_hand():
    stat, more = PQStat(), PQStat()
    stat[1].iou, stat[1].tp, stat[1].fp = 1.5, 2, 1
    more[1].fn, more[7].fn, more[9].tp, more[9].iou = 3, 1, 1, .75
    stat += more
    categories = {1: dict(isthing=1), 2: dict(isthing=1), 7: dict(isthing=1), 9: dict(isthing=0)}
    things, of_class = stat.pq_average(categories, isthing=True)
    assert of_class == {1: dict(pq=1.5 / 4, sq=.75, rq=.5), 2: dict(pq=0., sq=0., rq=0.), 7: dict(pq=0., sq=0., rq=0.)}
    assert things == dict(pq=1.5 / 8, sq=.375, rq=.25, n=2)  # class 2 has no segment and does not count
    both, _ = stat.pq_average(categories, isthing=None)
    assert both == pytest.approx(dict(pq=(.375 + .75) / 3, sq=1.5 / 3, rq=1.5 / 3, n=3))
    assert PQStat().pq_average(categories, None)[0] == dict(pq=0., sq=0., rq=0., n=0)


@pytest.mark.parametrize('wrong, expected', [(False, 100.), (True, 0.)])
def test_metric_of_mmdet(wrong, expected, tmp_path):
    """The truth as the prediction scores 100; with each class replaced by its neighbour, 0."""
    published_data.make_coco_panoptic(tmp_path)
    file = tmp_path / 'annotations/panoptic_val2017.json'
    content = json.loads(file.read_text())
    label = {category['id']: i for i, category in enumerate(content['categories'])}
    metric = CocoPanopticMetric(ann_file=str(file), seg_prefix=str(tmp_path / 'annotations/panoptic_val2017'))
    metric.dataset_meta = CocoPanopticDataset.METAINFO
    for image, annotation in zip(content['images'], content['annotations'], strict=True):
        ids = rgb2id(np.asarray(Image.open(tmp_path / 'annotations/panoptic_val2017' / annotation['file_name'])))
        predicted = np.full_like(ids, 133)  # no class
        for number, segment in enumerate(annotation['segments_info']):
            predicted[ids == segment['id']] = (label[segment['category_id']] + wrong) % 133 + 1000 * number
        metric.process({}, [dict(img_id=image['id'], img_path=str(Path('val2017', image['file_name'])),
                                 ori_shape=ids.shape,
                                 pred_panoptic_seg=dict(sem_seg=torch.from_numpy(predicted)[None]))])
    scores = metric.compute_metrics(metric.results)
    assert scores['PQ'] == pytest.approx(expected) == scores['PQ_th'] == scores['PQ_st']
