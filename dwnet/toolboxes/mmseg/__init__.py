"""What mmseg answers: semantic segmentation. ``lean`` keeps a validation's memory small, ``graph`` is for exports."""
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from torch import nn

from dwnet.data.parts import OwnData, palette

from ..base import Toolbox, inferencer_around, with_metric


class MMSeg(Toolbox):
    """mmseg, which PyPI has as mmsegmentation."""
    name = 'mmseg'
    distribution = 'mmsegmentation'
    extra = 'seg'
    task = 'segmentation'
    image_shape = (512, 2048)
    scores = {'mIoU': 'mIoU'}
    main_scores = {'mmseg.IoUMetric': ('iou_metrics', {'mIoU': 'mIoU', 'mDice': 'mDice', 'mFscore': 'mFscore'})}
    layer_decay = 'mmseg.LearningRateDecayOptimizerConstructor'
    tta_model = dict(type='mmseg.SegTTAModel')
    only_ascii = True

    def prepare_visualizer(self, visualizer: Visualizer) -> None:
        visualizer.alpha = .6  # keeps the image visible

    def own_dataset(self, data: OwnData, part: str) -> dict:
        colours = [(0, 0, 0), *palette(len(data.classes) - 1)]  # the first class is nearly always the background
        found = dict(data.parts[part])
        prefix = dict(img_path=found.pop('images'), seg_map_path=found.pop('masks'))
        return dict(type='mmseg.BaseSegDataset', data_root=str(data.root), data_prefix=prefix, reduce_zero_label=False,
                    metainfo=dict(classes=data.classes, palette=colours), **found)

    def own_evaluator(self, cfg: Config, data: OwnData, part: str) -> dict:
        return dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])

    def prepare_model(self, model: nn.Module, cfg: Config) -> None:
        if not cfg.get('keep_seg_logits'):
            from .lean import make_lean
            make_lean(model)

    def prepare_evaluator(self, evaluator: Any, cfg: Config) -> Any:
        if cfg.get('keep_seg_logits'):
            return evaluator
        from .lean import IoUMetric, LeanIoUMetric
        return with_metric(evaluator, IoUMetric, LeanIoUMetric)

    def save_predictions(self, cfg: Config, out: str) -> None:
        cfg.test_evaluator.update(output_dir=out, keep_results=True)  # a folder of label images

    def slice_images(self, cfg: Config, size: int, overlap: float) -> None:
        """By mmseg's sliding window, which averages the logits where tiles overlap."""
        stride = max(1, round(size * (1 - overlap)))
        cfg.model.test_cfg = {**(cfg.model.get('test_cfg') or {}), 'mode': 'slide', 'crop_size': (size, size),
                              'stride': (stride, stride)}

    def random_batch(self, number: int, shape: tuple[int, int]) -> dict:
        """Each pixel is of one of 150 classes."""
        from mmseg.structures import SegDataSample
        meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape)
        samples = [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=torch.randint(0, 150, (1, *shape))))
                   for _ in range(number)]
        images = [torch.randint(0, 256, (3, *shape), dtype=torch.uint8) for _ in range(number)]
        return dict(inputs=images, data_samples=samples)

    def graph(self, model: nn.Module) -> nn.Module:
        if not hasattr(model, 'decode_head'):
            return super().graph(model)
        from .graph import Segmentor
        return Segmentor(model)

    def inferencer(self, model: nn.Module) -> Any:
        from mmseg.apis import MMSegInferencer
        return inferencer_around(MMSegInferencer, model, **model.dataset_meta)
