"""Stock configs of the installed toolboxes: which there are, and a training step and a prediction of each."""
import copy
import importlib.util
from pathlib import Path

import numpy as np
import stock_pose
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from stock_video_text import check_clips, check_text, clips, text

import dwnet  # noqa: F401  before the toolboxes
from dwnet.toolboxes.base import innermost
from dwnet.toolboxes.mmpose import one_by_one

TOOLBOXES = ('mmdet', 'mmseg', 'mmpretrain', 'mmyolo', 'mmrotate', 'mmpose', 'mmaction', 'mmocr')
DEPTH = dict(mmpose=3, mmaction=2, mmocr=2)  # their folders are those of a body or task, a method and data
SMALL = dict(embed_dims=96, depths=(1, 1, 1, 1))  # the channels of tiny


def folder_of(toolbox: str) -> Path:
    """The configs that came with a toolbox's wheel."""
    return Path(importlib.util.find_spec(toolbox).submodule_search_locations[0], '.mim/configs')


def families(toolbox: str) -> list[str]:
    """Each folder of configs."""
    folder = folder_of(toolbox)
    paths = [path.relative_to(folder) for path in folder.glob('/'.join('*' * DEPTH.get(toolbox, 1)))
             if path.is_dir()]
    return sorted(path.as_posix() for path in paths if '_base_' not in path.parts)


def first_config(toolbox: str, family: str) -> tuple[Path | None, Config | None]:
    """The rule: a family's first config by name that can be read and whose model has a backbone."""
    for path in sorted(folder_of(toolbox).joinpath(family).glob('*.py')):
        if path.name.startswith('_base_'):  # mmocr keeps bases beside the configs
            continue
        try:
            cfg = Config.fromfile(path)
        except Exception:  # those that are broken as they are shipped
            continue
        if 'backbone' in cfg.get('model', {}):
            return path, cfg
    return None, None


def _preprocessor(cfg: Config) -> dict:
    return cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}


def train_and_predict(cfg: Config) -> None:
    """An optimizer step, from the data preprocessor to the backbone's first layer, and a prediction."""
    toolbox, side = cfg.default_scope, _side(cfg)
    model_cfg, preprocessor = copy.deepcopy(cfg.model), copy.deepcopy(_preprocessor(cfg))
    _leave_out_downloads(model_cfg)
    _one_process(model_cfg)
    _few_proposals([model_cfg.get('train_cfg'), model_cfg.get('test_cfg')])
    for part in [preprocessor, *(preprocessor.get('batch_augments') or [])]:
        if part.get('size'):  # images are padded to it
            part['size'] = (side, side)
        if part.get('random_size_range'):
            part['random_size_range'] = (side, side)
    if 'crop_size' in model_cfg:  # H2RBox's views
        model_cfg.crop_size = (side, side)
    if preprocessor:
        model_cfg.data_preprocessor = preprocessor
    settings = copy.deepcopy(cfg.optim_wrapper)
    for key in ('loss_scale', 'dtype', 'use_fp16', 'accumulative_counts'):  # mixed precision is for GPUs
        settings.pop(key, None)
    settings.type = OptimWrapper
    for key, value in dict(iter=0, epoch=0, max_iters=100, max_epochs=10).items():  # some models ask the Runner
        MessageHub.get_current_instance().update_info(key, value)
    with DefaultScope.overwrite_default_scope(toolbox):
        model = revert_sync_batchnorm(MODELS.build(model_cfg))
        model.train()
        model.init_weights()
        gradients = []
        model.backbone.patch_embed.proj.weight.register_hook(gradients.append)
        data = SAMPLES[toolbox](cfg, side)
        optimizer = build_optim_wrapper(model, settings)
        for _ in range(2):
            losses = model.train_step(copy.deepcopy(data), optimizer)
            assert torch.isfinite(losses['loss']), losses
            assert gradients and all(g.isfinite().all() for g in gradients)
            if any(g.any() for g in gradients):
                break  # else the head starts at zero, as that of a ViT, and passes gradients from the next step on
        else:
            raise AssertionError('no gradient reaches the first layer of the backbone')
        model.eval()
        with torch.no_grad():
            if toolbox == 'mmpretrain' and cfg.model.type != 'ImageClassifier':
                inputs = model.data_preprocessor(data, False)['inputs']
                predictions = model.extract_feat(inputs[0])[-1].flatten(1)
            elif toolbox == 'mmpose':
                predictions = one_by_one(model, data)
            else:
                predictions = model.test_step(TO_PREDICT.get(toolbox, lambda *_: data)(cfg, side))
    CHECKS[toolbox](predictions, side)


def _one_process(part) -> None:
    """mmcv's SyncBN wants a process group when it is built; PyTorch's is left for ``revert_sync_batchnorm``."""
    if isinstance(part, dict):
        if part.get('type') == 'MMSyncBN':
            part['type'] = 'BN'
        for value in part.values():
            _one_process(value)


def _few_proposals(part) -> None:
    """Sets a few dozen proposals in the place of thousands, which saves most of the time."""
    if isinstance(part, dict):
        for key, value in part.items():
            # a max_per_img without NMS is the number of a model's queries
            if isinstance(value, int) and (key in ('nms_pre', 'num') or key == 'max_per_img' and 'nms' in part):
                part[key] = min(value, 32)
            else:
                _few_proposals(value)
    elif isinstance(part, (list, tuple)):
        for item in part:
            _few_proposals(item)


def _leave_out_downloads(part) -> None:
    """Leaves out everything that would be downloaded."""
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


def _side(cfg: Config) -> int:
    """Side of the images: two-stage DETRs choose up to 900 of their cells, SSD's last maps have 1/300 of the side, and
    SASM and mmyolo's ATSS choose 9 cells of each map, the last of stride 128 and 32.
    """
    if 'SASAssigner' in str(cfg.model.get('train_cfg')):
        return 384
    if cfg.model.get('as_two_stage'):
        return 256
    if 'SSDNeck' in str(cfg.model.get('neck')):
        return 320
    return 96 if 'BatchATSS' in str(cfg.model.get('train_cfg')) else 64


def _images(side: int) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(2)]


def _detection(cfg: Config, side: int) -> dict:
    from mmdet.structures import DetDataSample, ReIDDataSample
    from mmdet.structures.mask import BitmapMasks
    if cfg.model.type == 'BaseReID':
        return dict(inputs=_images(side), data_samples=[ReIDDataSample().set_gt_label(i) for i in range(2)])
    samples = []
    for _ in range(2):
        boxes = torch.tensor([[4., 4., 36., 40.], [20., 15., 60., 60.]])
        masks = np.zeros((2, side, side), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(metainfo=dict(
            img_shape=(side, side), ori_shape=(side, side), scale_factor=(1., 1.), img_id=1, img_path='',
            text='person . car .', custom_entities=False, tokens_positive=-1))
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 0]), masks=BitmapMasks(masks, side, side))
        sample.ignored_instances = InstanceData(
            bboxes=boxes[:0], labels=torch.zeros(0).long(), masks=BitmapMasks(masks[:0], side, side))
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(masks.max(0)).long()[None])
        proposals = boxes.repeat(15, 1) + torch.rand(30, 4) * 8 - 4
        if 'rpn_head' not in cfg.model:
            sample.proposals = InstanceData(bboxes=proposals, scores=torch.rand(30))
        samples.append(sample)
    return dict(inputs=_images(side), data_samples=samples)


def _rotated(cfg: Config, side: int) -> dict:
    """Rotated boxes, or quadrangles where the config's pipeline leaves the boxes so."""
    from mmdet.structures import DetDataSample
    from mmrotate.structures.bbox import RotatedBoxes
    steps = innermost(cfg.train_dataloader.dataset).pipeline
    kind = 'qbox'
    for step in steps:
        kind = step.get('box_type_mapping', {}).get('gt_bboxes', kind)
    samples = []
    for i in range(2):
        boxes = RotatedBoxes(torch.tensor([[20., 22., 34., 22., .4], [40., 38., 20., 36., -.6]])).convert_to(kind)
        sample = DetDataSample(metainfo=dict(
            img_shape=(side, side), ori_shape=(side, side), scale_factor=(1., 1.), img_id=i, img_path=''))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 0]))
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0).long())
        samples.append(sample)
    return dict(inputs=_images(side), data_samples=samples)


def _collated(cfg: Config, side: int) -> dict:
    """The batch of :func:`_detection` as mmyolo's ``yolov5_collate`` makes it."""
    batch = _detection(cfg, side)
    rows = [torch.cat([torch.full((2, 1), float(i)), sample.gt_instances.labels[:, None].float(),
                       sample.gt_instances.bboxes], 1) for i, sample in enumerate(batch['data_samples'])]
    masks = [sample.gt_instances.masks.to_tensor(torch.float32, 'cpu') for sample in batch['data_samples']]
    several_sizes = cfg.train_dataloader.collate_fn.get('use_ms_training', False)
    return dict(inputs=batch['inputs'] if several_sizes else torch.stack(batch['inputs']),
                data_samples=dict(bboxes_labels=torch.cat(rows), masks=torch.cat(masks)))


def _segmentation(cfg: Config, side: int) -> dict:
    from mmseg.structures import SegDataSample
    samples = []
    for _ in range(2):
        target = torch.zeros(1, side, side, dtype=torch.long)
        target[:, 15:45, 15:45] = 1
        sample = SegDataSample(metainfo=dict(img_shape=(side, side), ori_shape=(side, side)))
        sample.gt_sem_seg = sample.gt_edge_map = PixelData(data=target)
        samples.append(sample)
    return dict(inputs=_images(side), data_samples=samples)


def _classification(cfg: Config, side: int) -> dict:
    from mmpretrain.structures import DataSample
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    if cfg.model.type != 'ImageClassifier':  # self-supervised: views of each image, two or as many as SwAV crops
        views = sum(cfg.model.head.get('loss', {}).get('num_crops', [2]))
        return dict(inputs=[torch.stack(_images(side)) for _ in range(views)], data_samples=samples)
    return dict(inputs=_images(side), data_samples=samples)


def _check_detections(predictions: list, side: int) -> None:
    assert len(predictions) == 2
    for sample in predictions:
        assert any(key.startswith('pred_') for key in sample.all_keys()), sample


def _check_segmentations(predictions: list, side: int) -> None:
    assert [tuple(sample.pred_sem_seg.data.shape) for sample in predictions] == [(1, side, side)] * 2


def _check_classes(predictions: list | torch.Tensor, side: int) -> None:
    assert len(predictions) == 2
    for sample in predictions:
        scores = sample if isinstance(sample, torch.Tensor) else sample.pred_score  # self-supervised: its features
        assert scores.numel() > 1 and scores.isfinite().all()


SAMPLES = dict(mmdet=_detection, mmseg=_segmentation, mmpretrain=_classification, mmyolo=_collated, mmrotate=_rotated,
               mmpose=lambda cfg, side: stock_pose.batch(cfg), mmaction=clips, mmocr=text)
TO_PREDICT = dict(mmyolo=_detection)  # where a batch to predict is another than one to train
CHECKS = dict(mmdet=_check_detections, mmseg=_check_segmentations, mmpretrain=_check_classes, mmyolo=_check_detections,
              mmrotate=_check_detections, mmpose=lambda predictions, side: stock_pose.check(predictions),
              mmaction=check_clips, mmocr=check_text)
