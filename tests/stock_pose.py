"""A batch for any stock config of mmpose, labelled by the config's own codec."""
import copy
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS

# Steps of a training pipeline that make labels of keypoints in the pixels of the network's input
LABELLING = ('GenerateTarget', 'BottomupGetHeatmapMask')


def batch(cfg: Config) -> dict:
    """Two random images: with one instance each for top-down models, otherwise with two."""
    meta, rng = _meta(cfg), np.random.default_rng(0)
    training = _pipeline(cfg)
    steps = [step for step in training if step.type in LABELLING]
    if not training:  # that of associative embedding is empty
        steps = [ConfigDict(type=LABELLING[0], encoder=cfg.codec), ConfigDict(type=LABELLING[1])]
    width, height = input_size(steps)
    number, keypoints = 1 if cfg.get('data_mode') == 'topdown' else 2, meta['num_keypoints']
    keys = {'id', 'img_id', 'img_path', 'category_id', 'ori_shape', 'img_shape', 'input_size', 'input_center',
            'input_scale', 'flip', 'flip_direction', 'flip_indices', 'raw_ann_info', 'skeleton_links', 'scale_factor'}
    pipeline = Compose([*steps, dict(type='PackPoseInputs', meta_keys=tuple(sorted(keys)))])
    samples = []
    for i in range(2):
        boxes = np.array([[.1, .1, .7, .8], [.3, .2, .9, .9]][:number], np.float32) * [width, height, width, height]
        corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        points = corner + rng.uniform(size=(number, keypoints, 2)) * size
        if any(step.type == 'BottomupRandomAffine' and step.get('bbox_keep_corner', True) for step in training):
            boxes = boxes[:, [0, 1, 0, 3, 2, 1, 2, 3]].reshape(-1, 4, 2)  # that step leaves four corners
        samples.append(pipeline(copy.deepcopy(dict(
            meta, img=rng.integers(0, 256, (height, width, 3), np.uint8), img_shape=(height, width),
            ori_shape=(height, width), img_path='', id=i, img_id=i, category_id=[1] * number, iscrowd=[0] * number,
            bbox=boxes.astype(np.float32), bbox_score=np.ones(number, np.float32),
            bbox_center=(corner + size / 2)[:, 0], bbox_scale=size[:, 0], bbox_rotation=np.zeros(number, np.float32),
            area=size.prod(-1)[:, 0].astype(np.float32), invalid_segs=[], warp_mat=np.eye(2, 3),
            scale_factor=(1., 1.), keypoints=points.astype(np.float32),
            keypoints_visible=np.ones((number, keypoints), np.float32), input_size=(width, height),
            input_center=np.array([width, height]) / 2, input_scale=np.array([width, height]), flip=False,
            flip_direction=None, raw_ann_info=None))))
    return pseudo_collate(samples)


def input_size(steps: list[dict]) -> tuple[int, int]:
    """Width and height of the network's input, as the config's codec says; 256 if it does not."""
    for step in steps:
        encoder = step.get('encoder') or {}
        size = (encoder[0] if isinstance(encoder, list) else encoder).get('input_size')
        if size:
            return tuple(size)
    return 256, 256


def _meta(cfg: Config) -> dict:
    """The facts of the training data; nothing of a data set is read."""
    from mmpose.apis.inference import dataset_meta_from_config
    dataset = cfg.train_dataloader.dataset
    if 'ann_file' not in dataset:  # joined of others
        return dataset_meta_from_config(cfg, 'train')
    return DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True}).metainfo


def _pipeline(cfg: Config) -> list[dict]:
    dataset: Any = cfg.train_dataloader.dataset
    return dataset.pipeline if 'pipeline' in dataset else dataset.datasets[0].pipeline


def check(predictions: list) -> None:
    """Each image has keypoints, or a bottom-up model has found none."""
    assert len(predictions) == 2
    for sample in predictions:
        found = sample.pred_instances
        assert found.keypoints.ndim == 3 and found.keypoints.shape[-1] == 2 and np.isfinite(found.keypoints).all()
        assert found.keypoint_scores.shape == found.keypoints.shape[:2]
