"""Normalises images of any number of channels for detectors; imports mmdet."""
from collections.abc import Sequence

import torch
from mmdet.models import DetDataPreprocessor
from mmengine.registry import MODELS


@MODELS.register_module()
class AnyChannelsDataPreprocessor(DetDataPreprocessor):
    """mmdet's ``DetDataPreprocessor`` without the assertion that images have one or three channels.

    Args:
        mean: The mean of each channel.
        std: The standard deviation of each channel.
        settings: As for mmdet's.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **settings) -> None:
        super().__init__(**settings)
        self._enable_normalize = True
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
