"""What mmrotate answers: detection of rotated boxes. mmrotate stands on mmdet, and so does its toolbox.

==========  ==================================================================
``dota``    DOTA's annotations, checked; DOTA's score, computed in this process
==========  ==================================================================
"""
from typing import Any

from mmengine.config import Config
from torch import nn

from dwnet.errors import UserError

from ..base import with_metric
from ..mmdet import MMDet


class MMRotate(MMDet):
    """mmrotate 1.x, which PyPI has as mmrotate-dev; PyPI's mmrotate is an older generation."""
    name = 'mmrotate'
    distribution = 'mmrotate-dev'
    outdated = 'mmrotate'
    extra = 'rotate'
    task = 'rotated'
    image_shape = (1024, 1024)
    scores = {'dota/mAP': 'AP of rotated boxes', 'r_coco/bbox_mAP': 'AP of rotated boxes, as COCO counts'}
    main_scores = {
        'mmrotate.DOTAMetric': ('metric', {'mAP': 'dota/mAP'}),
        'mmrotate.RotatedCocoMetric': ('metric', {'bbox': 'r_coco/bbox_mAP'})}
    checked_datasets = {f'mmrotate.{name}': f'{__name__}.dota.Checked{name}'
                        for name in ('DOTADataset', 'DOTAv15Dataset', 'DOTAv2Dataset')}
    layer_decay = ''
    tta_model = None

    def score_of(self, metric: dict, scope: str | None) -> str | None:
        score = super().score_of(metric, scope)
        prefix = metric.get('prefix')  # HRSC's configs score twice
        return f"{prefix}/{score.partition('/')[2]}" if score and prefix else score

    def prepare_evaluator(self, evaluator: Any, cfg: Config) -> Any:
        from .dota import DOTAMetric, InProcessDOTAMetric
        return with_metric(super().prepare_evaluator(evaluator, cfg), DOTAMetric, InProcessDOTAMetric)

    def add_mirrored_view(self, cfg: Config) -> None:
        raise UserError('--tta averages upright boxes, and these are rotated: leave it out')

    def slice_images(self, cfg: Config, size: int, overlap: float) -> None:
        raise UserError('--slice joins upright boxes, and these are rotated: cut the images by mmrotate\'s '
                        'tools/data/dota/split, or predict by mmrotate.apis.inference_detector_by_patches')

    def tracker(self) -> Any:
        raise UserError('--track follows upright boxes, and these are rotated: leave it out')

    def random_batch(self, number: int, shape: tuple[int, int]) -> dict:
        """Each image has 8 rotated boxes, of 15 classes."""
        from mmrotate.testing import demo_mm_inputs
        return demo_mm_inputs(number, (3, *shape), num_items=[8] * number, num_classes=15, use_box_type=True)

    def graph(self, model: nn.Module) -> nn.Module:
        raise UserError(f'{type(model).__name__} cannot be exported: ONNX has no operators for rotated boxes; '
                        'its backbone alone can, by --backbone')
