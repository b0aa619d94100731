"""Images on which an exported file is tried: those of the config's data, and photographs of several sizes."""
import copy

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor, nn

from dwnet.errors import requires
from dwnet.toolboxes import enter_scope
from dwnet.toolboxes.base import innermost
from dwnet.toolboxes.graphs import image_channels
from dwnet.toolboxes.pixels import has_own_range

# (batch, height, width) of the photographs
SHAPES = ((1, 224, 224), (2, 160, 256), (3, 131, 203))


def of_data(cfg: Config, part: str, number: int) -> list[Tensor]:
    """Images of a config's data, evenly spaced, as the steps of the test pipeline leave them.

    Args:
        cfg: The config.
        part: ``'train'``, ``'val'`` or ``'test'``.
        number: The most images.

    Returns:
        Images (C, H, W) as the toolbox's data preprocessor takes them: colours are BGR, usually uint8.

    Raises:
        Exception: Any kind, if the config has no such data or the data cannot be read.
    """
    enter_scope(cfg)
    settings = copy.deepcopy(cfg[f'{part}_dataloader'].dataset)
    if part != 'test':
        settings = {**innermost(settings), 'pipeline': innermost(cfg.test_dataloader.dataset)['pipeline']}
    dataset = DATASETS.build({**settings, 'test_mode': True})
    places = np.unique(np.linspace(0, len(dataset) - 1, number).round().astype(int)) if len(dataset) else []
    return [dataset[int(place)]['inputs'] for place in places]


def photographs(model: nn.Module, graph: nn.Module) -> list[list[Tensor]]:
    """scikit-learn's two photographs, plain and mirrored, with the channels and values of a model's images.

    Returns:
        A batch for each of :data:`SHAPES`, as :func:`of_data` returns images; batches of one if ``graph`` takes one,
        and larger images if it has a ``trial_scale``.
    """
    with requires('scikit-learn', 'export', 'trying out the file'):
        from sklearn.datasets import load_sample_images
    pictures = [picture for whole in load_sample_images().images for picture in (whole, whole[:, ::-1])]
    scale = getattr(graph, 'trial_scale', 1)
    return [[_as_read(cv2.resize(picture, (scale * width, scale * height), interpolation=cv2.INTER_AREA), model, graph)
             for picture in pictures[:getattr(graph, 'batch', None) or batch]] for batch, height, width in SHAPES]


def as_input(pictures: list[Tensor]) -> Tensor:
    """The input of a graph, (B, C, H, W) in float32 and RGB, of images of one size as a toolbox takes them."""
    images = torch.stack(pictures).float()
    return images.flip(1) if images.shape[1] == 3 else images


def _as_read(picture: np.ndarray, model: nn.Module, graph: nn.Module) -> Tensor:
    """An RGB picture (H, W, 3) as the toolbox reads the images of a model: (C, H, W)."""
    channels = image_channels(model)
    image = torch.from_numpy(picture).permute(2, 0, 1)
    if channels == 3 and not has_own_range(getattr(model, 'cfg', None)):
        return image.flip(0)
    image = graph.normalise.mean + graph.normalise.std * (image[[i % 3 for i in range(channels)]].float() - 128) / 64
    return image.flip(0) if channels == 3 else image
