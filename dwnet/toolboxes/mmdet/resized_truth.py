"""Boxes and masks of a validation in the pixels of the network's input."""
from typing import Any

from mmcv.transforms import LoadAnnotations, Resize
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes
from mmengine.structures import InstanceData, PixelData
from torch import nn

from dwnet.data.checks import leaves

from ..resized_truth import resize_labels, resized_shape


def fit_truth_to_input(samples: list[DetDataSample], preprocessor: nn.Module, dataset: Any) -> None:
    """Changes the ground truth of samples as ``Resize``, ``Pad`` and the preprocessor do in a training."""
    if _is_loaded_behind_resize(dataset):
        for sample in samples:
            _resize(sample)
    # in a test, the preprocessor pads the images alone
    if getattr(preprocessor, 'pad_mask', False):
        preprocessor.pad_gt_masks(samples)
    if getattr(preprocessor, 'pad_seg', False):
        preprocessor.pad_gt_sem_seg(samples)


def _is_loaded_behind_resize(dataset: Any) -> bool:
    steps = next(leaves(dataset)).pipeline.transforms
    loading = max((i for i, step in enumerate(steps) if isinstance(step, LoadAnnotations)), default=len(steps))
    return not any(isinstance(step, Resize) for step in steps[loading:])


def _resize(sample: DetDataSample) -> None:
    shape = resized_shape(sample)
    for name in ('gt_instances', 'ignored_instances'):
        if name in sample:
            _resize_instances(sample.get(name), sample, shape)
    if 'gt_sem_seg' in sample:
        sample.gt_sem_seg = PixelData(sem_seg=resize_labels(sample.gt_sem_seg.sem_seg, shape))


def _resize_instances(instances: InstanceData, sample: DetDataSample, shape: tuple[int, int]) -> None:
    if 'bboxes' in instances:
        given = instances.bboxes
        boxes = given.clone() if isinstance(given, BaseBoxes) else HorizontalBoxes(given)  # copies
        boxes.rescale_(sample.get('scale_factor', (1., 1.)))
        boxes.clip_(shape)
        if 'pad_param' in sample:  # mmyolo's LetterResize also pads above and to the left
            top, _, left, _ = sample.pad_param
            boxes.translate_((left, top))
        instances.bboxes = boxes if isinstance(given, BaseBoxes) else boxes.tensor
    if 'masks' in instances:
        instances.masks = instances.masks.resize(shape).pad(sample.img_shape[:2])
