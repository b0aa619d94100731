"""What mmdet answers: object detection.

===================  ===============================================================
``coco``             COCO annotations, mended or left out; labels follow the names of the classes
``panoptic``         panoptic PNGs that have to be whole
``resized_truth``    boxes and masks of a validation in the pixels of the network's input
``channels``         normalises images of any number of channels
``slices``           detection in the tiles of large images
``tracking``         identities of the objects in a video
``tta``              test-time augmentation of detectors that also predict masks
``graphs``           which of the following an exported file computes
``two_stage_graph``  detectors with an RPN and RoI heads
``dense_graph``      one-stage detectors
``query_graph``      detectors with queries: DETR and its kin
``mask_graph``       Mask2Former and MaskFormer
``detector_graph``   what these graphs share
``deformable``       deformable attention and Mask2Former's pixel decoder for graphs
``exported``         detectors that run from exported files
===================  ===============================================================
"""
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS, VISUALIZERS
from torch import nn

from dwnet.data.checks import leaves
from dwnet.errors import UserError
from dwnet.registry import is_a, lineage, type_name

from ..base import Network, Toolbox, as_list, inferencer_around, innermost, palette, with_metric

if TYPE_CHECKING:  # importing it loads the readers of all forms of data
    from dwnet.data.own import OwnData

    from .tracking import Tracker


class MMDet(Toolbox):
    """mmdet."""
    name = 'mmdet'
    distribution = 'mmdet'
    extra = 'det'
    task = 'detection'
    keeps_strides = True
    pipeline_tag = 'object-detection'
    image_shape = (800, 1280)
    scores = {'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP', 'coco_panoptic/PQ': 'PQ',
              'lvis/bbox_AP': 'box AP of LVIS', 'lvis/segm_AP': 'mask AP of LVIS'}
    fractions = ('coco/', 'lvis/')
    # The first that a config measures chooses the best checkpoint; save_best in the config overrules the table.
    main_scores = {
        'mmdet.CocoMetric': ('metric', {'bbox': 'coco/bbox_mAP', 'segm': 'coco/segm_mAP'}),
        'mmdet.CocoPanopticMetric': ('metric', {'PQ': 'coco_panoptic/PQ'}),
        'mmdet.LVISMetric': ('metric', {'bbox': 'lvis/bbox_AP', 'segm': 'lvis/segm_AP'})}
    layer_decay = 'mmdet.LearningRateDecayOptimizerConstructor'
    checked_datasets = {'mmdet.CocoDataset': 'dwnet.CheckedCocoDataset'}
    checked_readers = {'mmdet.LoadPanopticAnnotations': f'{__name__}.panoptic.LoadWholePanoptic'}
    dump_type = 'mmdet.DumpDetResults'
    # boxes alone: mmdet cannot merge masks
    tta_model = dict(type='BoxTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=.5), max_per_img=100))

    # --- A user's own data ---------------------------------------------------------------------------------

    def own_dataset(self, data: 'OwnData', part: str) -> dict:
        found = data.parts[part]
        if data.things:
            return dict(type='mmdet.CocoPanopticDataset', data_root=str(data.root), ann_file=found['ann_file'],
                        data_prefix=dict(img=found['images'], seg=found['segments']),
                        metainfo=dict(classes=data.classes, thing_classes=data.classes[:data.things],
                                      stuff_classes=data.classes[data.things:], palette=palette(len(data.classes))),
                        **(dict(test_mode=True) if part != 'train' else {}))
        written = str(Path(found['ann_file']).parent)  # has images that lay inside of annotation files
        # in training, images without objects teach the background
        return dict(type='mmdet.CocoDataset', data_root=str(data.root), ann_file=found['ann_file'],
                    data_prefix=dict(img='', written=written),
                    metainfo=dict(classes=data.classes, palette=palette(len(data.classes))),
                    **(dict(test_mode=True) if part != 'train' else {}))

    def own_evaluator(self, cfg: Config, data: 'OwnData', part: str) -> dict:
        if data.things:
            return dict(type='mmdet.CocoPanopticMetric', ann_file=data.parts[part]['ann_file'],
                        seg_prefix=str(data.root / data.parts[part]['segments']))
        boxes = cfg.model.get('bbox_head') or not cfg.model.get('mask_head')  # SOLO predicts no boxes
        masks = data.with_masks and _has_mask_head(cfg.model)
        return dict(type='mmdet.CocoMetric', ann_file=data.parts[part]['ann_file'],
                    metric=[*['bbox'] * bool(boxes), *['segm'] * masks])

    def fit_to_data(self, cfg: Config, data: 'OwnData') -> None:
        """Leaves out the mask head if the objects have no masks."""
        if data.with_masks:
            return
        for part in ('train', 'val', 'test'):
            for step in innermost(cfg[f'{part}_dataloader'].dataset).pipeline:
                if is_a(step, 'mmcv.LoadAnnotations', TRANSFORMS, cfg.get('default_scope')):
                    step['with_mask'] = False
        if not _has_mask_head(cfg.model):
            return
        if 'roi_head' not in cfg.model:
            raise UserError('the annotations have no masks (segmentation), and this model predicts nothing but masks; '
                            'take the config of a detector')
        cfg.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
        print('the annotations have boxes and no masks: the mask head is left out')

    def accept_channels(self, cfg: Config, settings: dict) -> None:
        name = 'AnyChannelsDataPreprocessor'
        if len(settings['mean']) in (1, 3) or type_name(settings) == name:
            return
        if lineage(settings, MODELS, cfg.get('default_scope'))[:1] != ['mmdet.DetDataPreprocessor']:
            raise UserError(f"the images have {len(settings['mean'])} channels, and {type_name(settings)} takes 1 or "
                            '3: take a config with DetDataPreprocessor')
        settings['type'] = name
        imports = cfg.get('custom_imports') or dict(imports=[])
        module = 'dwnet.toolboxes.mmdet.channels'
        cfg.custom_imports = {**imports, 'imports': [*as_list(imports['imports']), module]}
        importlib.import_module(module)

    # --- Trainings and tests -------------------------------------------------------------------------------

    def prepare_evaluator(self, evaluator: Any, cfg: Config) -> Any:
        from .coco import CheckedCocoMetric, CocoMetric
        datasets = [dataset for part in ('val', 'test')
                    for dataset in _nested((cfg.get(f'{part}_dataloader') or {}).get('dataset'))]
        # other data sets, such as Cityscapes and Objects365, leave no annotation out
        if any(kind in self.checked_datasets for dataset in datasets for kind in lineage(dataset, DATASETS)[:1]):
            return with_metric(evaluator, CocoMetric, CheckedCocoMetric)
        return evaluator

    def fit_truth_to_input(self, batch: dict, model: nn.Module, dataset: Any) -> None:
        from .resized_truth import fit_truth_to_input
        fit_truth_to_input(batch['data_samples'], model.data_preprocessor, dataset)

    def count_classes(self, dataset: Any) -> dict[str, list[int]]:
        images, objects = [], []
        for part in leaves(dataset):
            for i in range(len(part)):
                instances = part.get_data_info(i)['instances']
                labels = [instance['bbox_label'] for instance in instances if not instance.get('ignore_flag')]
                objects += labels
                images += set(labels)
        classes = len(dataset.metainfo['classes'])
        return {name: np.bincount(np.array(labels, int), minlength=classes).tolist()
                for name, labels in (('images', images), ('objects', objects))}

    def save_pictures(self, cfg: Config, folder: str) -> None:
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=folder, interval=1)

    def add_mirrored_view(self, cfg: Config) -> None:
        super().add_mirrored_view(cfg)
        importlib.import_module('dwnet.toolboxes.mmdet.tta')  # registers BoxTTAModel
        for metric in as_list(cfg.test_evaluator):
            if is_a(metric, 'mmdet.CocoMetric', METRICS, cfg.get('default_scope')):
                metric.metric = 'bbox'

    def slice_images(self, cfg: Config, size: int, overlap: float) -> None:
        importlib.import_module('dwnet.toolboxes.mmdet.slices')  # registers the classes that are named here
        scope, loader = cfg.get('default_scope'), cfg.get('test_dataloader') or {}
        reader, *steps = loader.get('dataset', {}).get('pipeline') or [{}]
        if not is_a(reader, 'mmcv.LoadImageFromFile', TRANSFORMS, scope):
            raise UserError('--slice needs a test_dataloader whose pipeline begins with LoadImageFromFile')
        loader.dataset.pipeline = [reader, dict(type='KeepImage', transforms=steps)]
        of_tiles = [step for step in steps if not is_a(step, 'mmcv.LoadAnnotations', TRANSFORMS, scope)]
        cfg.model = ConfigDict(type='SlicedDetector', module=cfg.model, pipeline=of_tiles, size=size, overlap=overlap,
                               batch_size=loader.get('batch_size', 1))
        for metric in as_list(cfg.get('test_evaluator') or []):
            if is_a(metric, self.dump_type, METRICS, scope):
                metric.type = 'DumpRunLengths'
        if lineage(cfg.get('visualizer') or {}, VISUALIZERS, scope)[:1] == ['mmdet.DetLocalVisualizer']:
            cfg.visualizer.type = 'RunLengthVisualizer'

    # --- Inference -----------------------------------------------------------------------------------------

    def tracker(self) -> 'Tracker':
        from .tracking import Tracker
        return Tracker()

    def random_batch(self, number: int, shape: tuple[int, int]) -> dict:
        """Each image has 8 boxes and masks, of 80 classes."""
        from mmdet.testing import demo_mm_inputs
        return demo_mm_inputs(number, (3, *shape), num_items=[8] * number, num_classes=80, with_mask=True)

    def graph(self, model: nn.Module) -> nn.Module:
        from .graphs import graph
        return graph(model)

    def exported_model(self, network: Network, model: ConfigDict, data_preprocessor: dict) -> nn.Module:
        from .exported import ExportedDetector
        return ExportedDetector(network, model, data_preprocessor)

    def inferencer(self, model: nn.Module) -> Any:
        from mmdet.apis import DetInferencer
        return inferencer_around(DetInferencer, model, scope=self.name)


def _has_mask_head(model: dict) -> bool:
    return bool(model.get('mask_head') or model.get('panoptic_head')  # Mask2Former's
                or (model.get('roi_head') or {}).get('mask_head'))


def _nested(dataset: Any) -> Iterator[dict]:
    """The configs of a data set and of the data sets that it wraps."""
    if isinstance(dataset, dict):
        yield dataset
        for key in ('dataset', 'datasets'):
            for part in as_list(dataset.get(key, ())):
                yield from _nested(part)
