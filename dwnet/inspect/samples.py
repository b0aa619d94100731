"""Draws images with labels, boxes and masks, by the toolbox's visualizer."""
import copy
import inspect
import math
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from dwnet.engine.fonts import with_drawable_names
from dwnet.toolboxes import enter_scope, toolbox_of
from dwnet.toolboxes.graphs import converts_to_rgb
from dwnet.toolboxes.pixels import has_own_range, reader_of

MIN_SIDE = 256  # smaller images are enlarged, because texts would cover them
MAX_SIDE = 2048  # enlarging ends here for the longer side


def make_visualizer(cfg: Config, dataset_meta: dict, name: str) -> Visualizer:
    """The config's visualizer, without backends, so that nothing is written.

    Args:
        cfg: A config with a ``visualizer``.
        dataset_meta: ``classes`` and ``palette`` of the data, and what the toolbox draws by, as mmpose the skeleton.
        name: Name of the visualizer; mmengine keeps one visualizer for each name.
    """
    enter_scope(cfg)
    toolbox = toolbox_of(cfg)
    visualizer = VISUALIZERS.build({**cfg.visualizer, 'name': f'{name}-{toolbox.name}', 'vis_backends': None})
    visualizer.dataset_meta = with_drawable_names(dataset_meta, toolbox)
    toolbox.prepare_visualizer(visualizer)
    return visualizer


def draw(visualizer: Visualizer, image: np.ndarray, sample: Any, truth: bool, threshold: float = .3,
         side: int | None = None) -> np.ndarray:
    """Draws an image with the ground truth or the prediction.

    Args:
        visualizer: From :func:`make_visualizer`.
        image: (H, W, 3), uint8, RGB, in whose pixels the sample's boxes and masks are given.
        sample: The toolbox's data sample.
        truth: Draw the ground truth (``gt_…``), otherwise the prediction (``pred_…``).
        threshold: Detections and keypoints of a lower score are not drawn.
        side: The longer side of the picture, pixels. By default small images are enlarged by the least whole number
            that makes the shorter side 256 pixels, as long as the longer side stays within 2048.

    Returns:
        The picture, (h, w, 3), uint8, RGB.
    """
    shorter, longer = sorted(image.shape[:2])
    factor = side / longer if side else max(1, min(math.ceil(MIN_SIDE / shorter), MAX_SIDE // longer))
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    options: dict[str, Any] = dict(draw_gt=truth, draw_pred=not truth)
    if hasattr(visualizer, 'visualize_cls'):
        letters = 22 + max(map(len, visualizer.dataset_meta.get('classes') or ['']))  # "Prediction: 0, 0.99 (NAME)"
        visualizer.visualize_cls(image, sample, resize=None, text_cfg=dict(size=min(16, 1.08 * width / letters)),
                                 **options)
    else:
        sample = scaled(sample, factor, (height, width))
        options |= dict.fromkeys(_thresholds(visualizer), threshold)
        visualizer.add_datasample('', image, sample, **options)
    return np.ascontiguousarray(visualizer.get_image())


def takes_threshold(visualizer: Visualizer) -> bool:
    """Whether :func:`draw` leaves out what has a low score."""
    return not hasattr(visualizer, 'visualize_cls') and bool(_thresholds(visualizer))


def _thresholds(visualizer: Visualizer) -> list[str]:
    known = inspect.signature(visualizer.add_datasample).parameters
    return [name for name in ('pred_score_thr', 'kpt_thr') if name in known]


def scaled(sample: Any, factor: float, shape: tuple[int, int]) -> Any:
    """A copy of the sample whose boxes, polygons, keypoints and masks fit an image of ``shape``, (height, width)."""
    sample = copy.deepcopy(sample)
    for name in ('gt_sem_seg', 'pred_sem_seg'):
        if name in sample:
            labels = torch.as_tensor(getattr(sample, name).data)
            scaled = torch.nn.functional.interpolate(labels[None].float(), shape)[0].to(labels.dtype)  # nearest
            sample.set_field(PixelData(data=scaled), name, dtype=PixelData)
    if 'pred_panoptic_seg' in sample:
        ids = torch.as_tensor(sample.pred_panoptic_seg.sem_seg)
        scaled = torch.nn.functional.interpolate(ids[None].double(), shape)[0].to(ids.dtype)  # nearest
        sample.pred_panoptic_seg = PixelData(sem_seg=scaled.numpy())
    for name in ('gt_instances', 'pred_instances'):
        if name not in sample:
            continue
        instances = getattr(sample, name)
        if 'bboxes' in instances:
            boxes = instances.bboxes
            boxes = (boxes.tensor if hasattr(boxes, 'tensor') else boxes) * factor
            if boxes.shape[-1] == 5:  # x, y, width, height, and the angle of a rotated box
                boxes[..., 4] /= factor
            instances.bboxes = boxes
        if 'keypoints' in instances:
            instances.keypoints = instances.keypoints * factor
        if 'polygons' in instances:
            instances.polygons = [np.asarray(polygon) * factor for polygon in instances.polygons]
        if 'masks' in instances and factor != 1:
            masks = instances.masks
            if isinstance(masks, list):  # run lengths; few images are both sliced and enlarged
                masks = coco_mask.decode(masks).transpose(2, 0, 1) if masks else np.zeros((0, *shape))
            masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else masks
            masks = torch.as_tensor(np.asarray(masks)).float()[:, None]
            if len(masks):
                masks = torch.nn.functional.interpolate(masks, shape, mode='bilinear')
            instances.masks = masks.reshape(-1, *shape) > .5
    return sample


def to_picture(inputs: Tensor, preprocessor: torch.nn.Module, stretch: bool = False) -> np.ndarray:
    """Converts a network's input, (C, H, W), back to a picture: (H, W, 3), uint8, RGB.

    ``stretch`` is that of :func:`as_picture`.
    """
    if getattr(preprocessor, '_enable_normalize', False):
        inputs = inputs * preprocessor.std + preprocessor.mean
    image = inputs.cpu().permute(1, 2, 0).numpy()
    return as_picture(image[..., ::-1] if converts_to_rgb(preprocessor) and image.shape[-1] == 3 else image, stretch)


def as_picture(image: np.ndarray, stretch: bool = False) -> np.ndarray:
    """An image as a reader returns it, as a picture: (H, W, 3), uint8, RGB.

    Args:
        image: (H, W) or (H, W, C). Three channels are BGR. Of more channels the first three become red, green and blue;
            of two channels the first becomes grey.
        stretch: The values have another range than 0 to 255: each channel's darkest and brightest hundredth become
            black and white.
    """
    image = image[..., None] if image.ndim == 2 else image
    channels = image.shape[-1]
    shown = image[..., {3: [2, 1, 0]}.get(channels, [0, 1, 2] if channels > 3 else [0, 0, 0])]
    if stretch:
        low, high = np.percentile(shown[::max(1, len(shown) // 512), ::max(1, shown.shape[1] // 512)], (1, 99), (0, 1))
        shown = (shown - low) * (255 / np.maximum(high - low, np.finfo(np.float32).tiny))
    return np.ascontiguousarray(shown if shown.dtype == np.uint8 else shown.round().clip(0, 255).astype(np.uint8))


class PictureReader:
    """Reads images as a config's tests do, and returns them as pictures: (H, W, 3), uint8, RGB."""

    def __init__(self, cfg: Config) -> None:
        self._reader, self._stretch = reader_of(cfg), has_own_range(cfg)

    def __call__(self, path: str) -> np.ndarray:
        """Raises ValueError if the file is no whole image."""
        return as_picture(self._reader.transform(dict(img_path=path))['img'], self._stretch)
