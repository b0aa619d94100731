"""What mmyolo answers: detection by the YOLO family. mmyolo stands on mmdet, and so does its answer.

========  ==============================================================
``coco``  mmyolo's COCO data set with the checks of mmdet's
========  ==============================================================
"""
import math
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS
from torch import nn

from dwnet.errors import UserError
from dwnet.registry import is_a, lineage

from ..base import Toolbox
from ..mmdet import MMDet

if TYPE_CHECKING:  # importing it loads the readers of all forms of data
    from dwnet.data.own import OwnData


# Hooks that keep a schedule, by package and class; their settings of the epochs and of the least steps of the warm-up
_SCHEDULES = (('mmyolo.YOLOv5ParamSchedulerHook', 'max_epochs', 'warmup_mim_iter'),
              ('mmyolo.PPYOLOEParamSchedulerHook', 'total_epochs', 'warmup_min_iter'))


class MMYOLO(MMDet):
    """mmyolo."""
    name = 'mmyolo'
    distribution = 'mmyolo'
    extra = 'yolo'
    image_shape = (640, 640)
    checked_datasets = {'mmyolo.YOLOv5CocoDataset': 'dwnet.CheckedYOLOv5CocoDataset'}
    flip = 'mmdet.RandomFlip'

    # --- Configs -----------------------------------------------------------------------------------------

    def channels_taken(self, part: dict, stated: float) -> float:
        if 'widen_factor' not in part:
            return stated
        width = stated * part['widen_factor']
        return math.ceil(width / 8) * 8 if _rounds_up(part) else int(width)

    def channels_to_state(self, part: dict, taken: int) -> float:
        if 'widen_factor' not in part:
            return taken
        stated = taken / part['widen_factor']
        if stated.is_integer() or _rounds_up(part):
            return int(stated)
        return math.ceil(10 * stated) / 10  # between two integers: 384 = int(307.2 × 1.25), and int(308 × 1.25) = 385

    # --- A user's own data ---------------------------------------------------------------------------------

    def own_dataset(self, data: 'OwnData', part: str) -> dict:
        return {**super().own_dataset(data, part), 'type': 'mmyolo.YOLOv5CocoDataset'}

    # --- Trainings and tests -------------------------------------------------------------------------------

    def stretch_schedule(self, cfg: Config, factor: float, steps: int) -> None:
        """Stretches the schedules of mmyolo's hooks; their warm-up lasts at most a tenth of the training."""
        hook = cfg.default_hooks.get('param_scheduler') or {}
        for kind, length, warmup in _SCHEDULES:
            if is_a(hook, kind, HOOKS, cfg.get('default_scope')):
                if length in hook:
                    hook[length] = max(1, round(factor * hook[length]))
                hook[warmup] = min(hook.get(warmup, 1000), max(1, steps // 10))

    # --- Inference -----------------------------------------------------------------------------------------

    def random_batch(self, number: int, shape: tuple[int, int]) -> dict:
        """Each image has 8 boxes, of 80 classes; collated for ``YOLOv5DetDataPreprocessor``."""
        from mmdet.testing import demo_mm_inputs
        from mmyolo.datasets import yolov5_collate
        packed = demo_mm_inputs(number, (3, *shape), num_items=[8] * number, num_classes=80, use_box_type=True)
        return yolov5_collate([dict(inputs=image, data_samples=sample)
                               for image, sample in zip(packed['inputs'], packed['data_samples'])])

    def graph(self, model: nn.Module) -> nn.Module:
        raise UserError(f'{type(model).__name__} of mmyolo cannot be exported; its backbone alone can, by '
                        '--backbone')

    exported_model = Toolbox.exported_model  # not mmdet's: boxes lie in a letter box


def _rounds_up(part: Any) -> bool:
    """Whether a part takes ``widen_factor`` × stated channels rounded up to a multiple of 8; others cut fractions off.

    Of the necks, that of YOLOv5 and those that inherit from it round up.
    """
    kinds = lineage(part, MODELS)
    return 'mmyolo.BaseYOLONeck' not in kinds or 'mmyolo.YOLOv5PAFPN' in kinds
