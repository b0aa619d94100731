"""Stock configs of the installed toolboxes: which there are, and a training step and a prediction of each."""
import copy
import importlib.util
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

import dwnet  # noqa: F401  before the toolboxes

TOOLBOXES = ('mmdet', 'mmseg', 'mmpretrain')
SIDE = 64
SMALL = dict(embed_dims=96, depths=(1, 1, 1, 1))  # the channels of tiny


def folder_of(toolbox: str) -> Path:
    """The configs that came with a toolbox's wheel."""
    return Path(importlib.util.find_spec(toolbox).submodule_search_locations[0], '.mim/configs')


def families(toolbox: str) -> list[str]:
    """Each folder of configs."""
    return sorted(path.name for path in folder_of(toolbox).iterdir() if path.is_dir() and path.name != '_base_')


def first_config(toolbox: str, family: str) -> tuple[Path | None, Config | None]:
    """The rule: a family's first config by name that can be read and whose model has a backbone."""
    for path in sorted(folder_of(toolbox).joinpath(family).glob('*.py')):
        try:
            cfg = Config.fromfile(path)
        except Exception:  # those that are broken as they are shipped
            continue
        if 'backbone' in cfg.get('model', {}):
            return path, cfg
    return None, None


def train_and_predict(cfg: Config) -> None:
    """One optimizer step, by the model's own data preprocessor, that reaches the backbone's first layer; then a prediction."""
    model_cfg = copy.deepcopy(cfg.model)
    _leave_out_downloads(model_cfg)
    preprocessor = model_cfg.get('data_preprocessor') or cfg.get('data_preprocessor', {})
    for augment in preprocessor.get('batch_augments') or []:
        if 'size' in augment:
            augment['size'] = (SIDE, SIDE)
    _few_proposals([model_cfg.get('train_cfg'), model_cfg.get('test_cfg')])
    model_cfg.setdefault('data_preprocessor', preprocessor or None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(model_cfg))
        model.train()
        model.init_weights()
        settings = copy.deepcopy(cfg.optim_wrapper)
        settings.update(type=OptimWrapper)
        for key in ('loss_scale', 'dtype', 'use_fp16', 'accumulative_counts'):
            settings.pop(key, None)
        optimizer = build_optim_wrapper(model, settings)
        gradients = []
        model.backbone.patch_embed.proj.weight.register_hook(gradients.append)
        samples = SAMPLES[cfg.default_scope](cfg)
        losses = model.train_step(copy.deepcopy(samples), optimizer)
        assert torch.isfinite(losses['loss']), losses
        assert gradients and all(g.isfinite().all() for g in gradients) and any(g.any() for g in gradients)
        with torch.no_grad():
            model.eval()
            predictions = model.test_step(copy.deepcopy(samples))
        CHECKS[cfg.default_scope](predictions)


def _few_proposals(part) -> None:
    """Of thousands a few dozen, which saves most of the time."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ('max_per_img', 'nms_pre', 'num') and isinstance(value, int):
                part[key] = min(value, 32)
            else:
                _few_proposals(value)
    elif isinstance(part, (list, tuple)):
        for item in part:
            _few_proposals(item)


def _leave_out_downloads(part) -> None:
    """Nothing is fetched."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ('init_cfg', 'pretrained', 'teacher_ckpt') or key == 'checkpoint':
                if key != 'init_cfg' or (value or {}) and isinstance(value, dict) and value.get('type') == 'Pretrained':
                    part[key] = None
            else:
                _leave_out_downloads(value)
    elif isinstance(part, (list, tuple)):
        for item in part:
            _leave_out_downloads(item)


def _images() -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8) for _ in range(2)]


def _detection(cfg: Config) -> dict:
    from mmdet.structures import DetDataSample, ReIDDataSample
    from mmdet.structures.mask import BitmapMasks
    if cfg.model.type == 'BaseReID':
        return dict(inputs=_images(), data_samples=[ReIDDataSample().set_gt_label(i) for i in range(2)])
    samples = []
    for _ in range(2):
        boxes = torch.tensor([[4., 4., 36., 40.], [20., 15., 60., 60.]])
        masks = np.zeros((2, SIDE, SIDE), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        shape = dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), scale_factor=(1., 1.), img_id=1, img_path='',
                     text='person . car .', custom_entities=False, tokens_positive=-1)
        sample = DetDataSample(metainfo=shape)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 0]),
                                           masks=BitmapMasks(masks, SIDE, SIDE))
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0).long(),
                                                masks=BitmapMasks(masks[:0], SIDE, SIDE))
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(masks.max(0)).long()[None])
        noise = torch.rand(30, 4) * 8 - 4
        sample.proposals = InstanceData(bboxes=boxes.repeat(15, 1) + noise, scores=torch.rand(30))
        samples.append(sample)
    return dict(inputs=_images(), data_samples=samples)


def _segmentation(cfg: Config) -> dict:
    from mmseg.structures import SegDataSample
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE)))
        target = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
        target[:, 15:45, 15:45] = 1
        sample.gt_sem_seg = PixelData(data=target)
        sample.gt_edge_map = PixelData(data=target)
        samples.append(sample)
    return dict(inputs=_images(), data_samples=samples)


def _classification(cfg: Config) -> dict:
    from mmpretrain.structures import DataSample
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    return dict(inputs=_images(), data_samples=samples)


def _check_detections(predictions: list) -> None:
    assert len(predictions) == 2
    for sample in predictions:
        assert any(key.startswith('pred_') for key in sample.keys()), sample


def _check_segmentations(predictions: list) -> None:
    assert [tuple(sample.pred_sem_seg.data.shape) for sample in predictions] == [(1, SIDE, SIDE)] * 2


def _check_classes(predictions: list) -> None:
    assert len(predictions) == 2
    for sample in predictions:
        assert sample.pred_score.isfinite().all() and sample.pred_label.numel() > 0


SAMPLES = dict(mmdet=_detection, mmseg=_segmentation, mmpretrain=_classification)
CHECKS = dict(mmdet=_check_detections, mmseg=_check_segmentations, mmpretrain=_check_classes)
