"""Ground truth of a validation in the pixels of the network's input, as losses need it.

Test pipelines load the ground truth behind the resizing, since scores are computed in the pixels of the file.
"""
from typing import Any

import mmcv
import torch
from torch import Tensor


def resized_shape(sample: Any) -> tuple[int, int]:
    """Height and width of a sample's image after the resizing, and before any padding."""
    if 'scale_factor' not in sample:
        return tuple(sample.ori_shape[:2])
    width, height = sample.scale_factor
    return round(sample.ori_shape[0] * height), round(sample.ori_shape[1] * width)


def resize_labels(labels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Labels of pixels, (1, H, W), in another shape, as the toolboxes' ``Resize`` makes them in a training."""
    if labels.shape[-2:] == shape:
        return labels
    height, width = shape
    resized = mmcv.imresize(labels[0].float().cpu().numpy(), (width, height), interpolation='nearest')
    return torch.from_numpy(resized).to(labels)[None]
