"""The tasks of the demo."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One task of the demo.

    Attributes:
        name: Name of the task, and of its folder.
        config: Name of the config.
        scores: The metrics for the table.
        quick_epochs: Epochs of the shortened training.
        pretrained: Whether the training starts from the classification weights.
    """
    name: str
    config: str
    scores: tuple[str, ...]
    quick_epochs: int
    pretrained: bool = True


TASKS = (
    Task('classification', 'dwnet::classification/dwnet-nano_digits.py',
         ('accuracy/top1', 'accuracy/top5'), quick_epochs=2, pretrained=False),
    Task('detection', 'dwnet::detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
         ('coco/bbox_mAP', 'coco/segm_mAP'), quick_epochs=1),
    Task('segmentation', 'dwnet::segmentation/upernet_dwnet-nano_digits.py', ('mIoU', ), quick_epochs=1),
)
