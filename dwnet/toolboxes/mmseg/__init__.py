"""What mmseg answers: semantic segmentation.

================  =================================================
``pairs``         a data set of pairs, an image and its label image
``lean``          keeps a validation's memory small
``class_counts``  how many images show each class
``graph``         what the exported file of a segmentor computes
``exported``      segmentors that run from exported files
================  =================================================
"""
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from torch import nn

from ..base import Network, Toolbox, inferencer_around, palette, with_metric

if TYPE_CHECKING:  # importing it loads the readers of all forms of data
    from dwnet.data.own import OwnData


class MMSeg(Toolbox):
    """mmseg, which PyPI has as mmsegmentation."""
    name = 'mmseg'
    distribution = 'mmsegmentation'
    extra = 'seg'
    task = 'segmentation'
    pipeline_tag = 'image-segmentation'
    image_shape = (512, 2048)
    scores = {'mIoU': 'mIoU'}
    main_scores = {'mmseg.IoUMetric': ('iou_metrics', {'mIoU': 'mIoU', 'mDice': 'mDice', 'mFscore': 'mFscore'})}
    layer_decay = 'mmseg.LearningRateDecayOptimizerConstructor'
    tta_model = dict(type='mmseg.SegTTAModel')
    only_ascii = True

    def prepare_visualizer(self, visualizer: Visualizer) -> None:
        visualizer.alpha = .6  # keeps the image visible

    def own_dataset(self, data: 'OwnData', part: str) -> dict:
        colours = [(0, 0, 0), *palette(len(data.classes) - 1)]  # the first class is nearly always the background
        pairs = data.parts[part]['ann_file']
        # label images that were written anew lie beside the pairs
        return dict(type='dwnet.PairedSegDataset', data_root=str(data.root), ann_file=pairs,
                    data_prefix=dict(img_path='', seg_map_path=str(Path(pairs).parent)),
                    reduce_zero_label=False, metainfo=dict(classes=data.classes, palette=colours))

    def own_evaluator(self, cfg: Config, data: 'OwnData', part: str) -> dict:
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

    def fit_truth_to_input(self, batch: dict, model: nn.Module, dataset: Any) -> None:
        from ..resized_truth import resize_labels, resized_shape
        height, width = batch['inputs'].shape[-2:]
        for sample in batch['data_samples']:
            labels = resize_labels(sample.gt_sem_seg.data, resized_shape(sample))
            padding = 0, width - labels.shape[-1], 0, height - labels.shape[-2]
            labels = nn.functional.pad(labels, padding, value=model.data_preprocessor.seg_pad_val)
            sample.gt_sem_seg = PixelData(data=labels)

    def count_classes(self, dataset: Any) -> dict[str, list[int]]:
        from .class_counts import images_with_classes
        return dict(images=images_with_classes(dataset))

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

    def exported_model(self, network: Network, model: ConfigDict, data_preprocessor: dict) -> nn.Module:
        from .exported import ExportedSegmentor
        return ExportedSegmentor(network, model, data_preprocessor)

    def inferencer(self, model: nn.Module) -> Any:
        from mmseg.apis import MMSegInferencer
        return inferencer_around(MMSegInferencer, model, **model.dataset_meta)
