"""Finds small objects in large images: a detector sees overlapping tiles of an image, and the whole image.

Source: Akyon, Altinuc and Temizel, "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection", ICIP
2022. Their package ``sahi`` is not used: it builds the detector by mmdet's loader, which cannot read checkpoints on
today's PyTorch, feeds no metric of mmengine, turns masks into polygons, and needs the OpenCV with graphical libraries.

The network's resizing comes after the cutting, so a tile reaches the network larger than it would in its image. The
whole image finds objects that are larger than a tile. Masks are kept as cut-outs, and at the end as run lengths, since
one mask of the whole image takes a byte a pixel.
"""
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.evaluation import DumpDetResults
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import METRICS, MODELS, TRANSFORMS, VISUALIZERS
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import batched_nms, box_area

from dwnet.errors import UserError

SAME = .5  # boxes of one class that overlap more, as intersection over union, are one object
PIECE = .7  # a box that its tile cuts is a piece if so much of it lies in a larger box of its class
_AT_A_TIME = 16  # masks of the whole image that are drawn together


class Tile(NamedTuple):
    """A part of an image, in its pixels."""
    left: int
    top: int
    right: int
    bottom: int


def tiles_of(width: int, height: int, size: int, overlap: float) -> list[Tile]:
    """Squares of ``size`` pixels that cover an image, row by row.

    Neighbours share the fraction ``overlap`` of a side. The last square of a row or column is moved inwards, so that
    all tiles have one size. An image that fits into one tile has none.
    """
    if max(width, height) <= size:
        return []
    return [Tile(left, top, min(left + size, width), min(top + size, height))
            for top, left in product(_starts(height, size, overlap), _starts(width, size, overlap))]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    last = max(0, length - size)
    return [*range(0, last, max(1, round(size * (1 - overlap)))), last]


class CutOut(NamedTuple):
    """The part of a mask that has pixels of the object, and its place in the whole image."""
    left: int
    top: int
    pixels: np.ndarray  # (h, w), bool

    @classmethod
    def of(cls, mask: Tensor, tile: Tile) -> 'CutOut':
        """The cut-out of a mask, (H, W), bool, of a tile."""
        rows, columns = (mask.any(axis).nonzero()[:, 0].tolist() or [0] for axis in (1, 0))
        pixels = mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].cpu().numpy().copy()  # lets the mask go
        return cls(tile.left + columns[0], tile.top + rows[0], pixels)

    @property
    def box(self) -> tuple[int, int, int, int]:
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width, self.top + height

    def run_lengths(self, width: int, height: int) -> dict:
        """The mask of the whole image in COCO's form: pixels outside, inside, outside …, column by column."""
        columns = np.zeros((self.pixels.shape[1], height), bool)
        columns[:, self.top:self.top + self.pixels.shape[0]] = self.pixels.T
        changes = np.flatnonzero(np.diff(columns.ravel(), prepend=False)) + self.left * height
        counts = np.diff(changes, prepend=0, append=width * height)
        return coco_mask.frPyObjects(dict(size=[height, width], counts=counts.tolist()), height, width)


class Found(NamedTuple):
    """Objects, in pixels of the whole image."""
    boxes: Tensor  # (N, 4): left, top, right, bottom
    scores: Tensor  # (N, )
    labels: Tensor  # (N, )
    cut: Tensor  # (N, ), bool: the box ends at an edge of its tile that is inside the image
    masks: list[CutOut] | None

    @classmethod
    def of(cls, instances: InstanceData, tile: Tile, width: int, height: int) -> 'Found':
        """A detector's predictions for a tile of an image of ``width`` × ``height``."""
        masks = [CutOut.of(mask, tile) for mask in instances.masks] if 'masks' in instances else None
        boxes = instances.bboxes.cpu() + torch.tensor([tile.left, tile.top] * 2)
        if masks and not instances.bboxes.any():  # SOLO and its like predict masks alone
            boxes = torch.tensor([mask.box for mask in masks], dtype=boxes.dtype)
        inside = torch.tensor([tile.left > 0, tile.top > 0, tile.right < width, tile.bottom < height])
        cut = (((boxes - torch.tensor(tile)).abs() <= 1) & inside).any(1)
        return cls(boxes, instances.scores.cpu(), instances.labels.cpu(), cut, masks)

    def take(self, chosen: Tensor) -> 'Found':
        masks = None if self.masks is None else [self.masks[i] for i in chosen.tolist()]
        return Found(self.boxes[chosen], self.scores[chosen], self.labels[chosen], self.cut[chosen], masks)


def merged(parts: Sequence[Found]) -> Found:
    """The objects of all parts of an image, each once, best first.

    Of boxes of one class that overlap, the best remains (non-maximum suppression). Boxes that a tile cuts come last, so
    that they replace no box of a whole object. They may overlap little with that box, which is in a neighbouring tile
    or in the whole image; so they also go if they lie in a larger box of their class.
    """
    if len(parts) == 1:
        return parts[0]
    masks = None if parts[0].masks is None else [mask for part in parts for mask in part.masks]
    found = Found(*(torch.cat(each) for each in list(zip(*parts))[:-1]), masks)
    found = found.take(batched_nms(found.boxes, found.scores - found.cut.float(), found.labels, SAME))
    found = found.take((~_pieces(found)).nonzero()[:, 0])
    return found.take(found.scores.argsort(descending=True))


def _pieces(found: Found) -> Tensor:
    """Which boxes are cut by their tile and lie in a larger box of their class, (N, ), bool."""
    boxes, areas, pieces = found.boxes, box_area(found.boxes), torch.zeros_like(found.cut)
    for i in found.cut.nonzero()[:, 0].tolist():  # one by one, since all pairs of many boxes would take gigabytes
        least, most = torch.maximum(boxes[:, :2], boxes[i, :2]), torch.minimum(boxes[:, 2:], boxes[i, 2:])
        covers = (most - least).clamp(min=0).prod(1) > PIECE * areas[i]
        pieces[i] = (covers & (areas > areas[i]) & (found.labels == found.labels[i])).any()
    return pieces


@TRANSFORMS.register_module()
class KeepImage(BaseTransform):
    """Runs the steps of a pipeline that follow the reading, and adds the image as it was read, under ``image``."""

    def __init__(self, transforms: Sequence[dict]) -> None:
        self.transforms = Compose(transforms)

    def transform(self, results: dict) -> dict:
        image = results['img']  # the steps put another one in its place
        return {**self.transforms(results), 'image': image}


@MODELS.register_module()
class SlicedDetector(DetTTAModel):
    """A detector whose predictions join those for the whole image and for its tiles.

    The masks of its predictions are lists of COCO's run lengths.

    Args:
        module: The detector or its config.
        pipeline: The steps between an image and the detector's input.
        size: Side of a tile, in pixels of the image.
        overlap: The fraction of a side that neighbouring tiles share.
        batch_size: Tiles that are computed at once.
    """

    def __init__(self, module: dict, pipeline: Sequence[dict], size: int, overlap: float, batch_size: int = 1,
                 **kwargs) -> None:
        super().__init__(module=module, **kwargs)
        self.pipeline, self.size, self.overlap, self.batch_size = Compose(pipeline), size, overlap, batch_size

    def test_step(self, data: dict) -> list[DetDataSample]:
        """Predicts a batch; ``image`` of the batch has the images as they were read, arrays (H, W, C)."""
        images, samples = data['image'], self.module.test_step({k: v for k, v in data.items() if k != 'image'})
        for image, sample in zip(images, samples):
            if 'pred_instances' not in sample:
                raise UserError(f'--slice joins objects, and {type(self.module).__name__} predicts none')
            height, width = image.shape[:2]
            whole = Found.of(sample.pred_instances, Tile(0, 0, width, height), width, height)
            del sample.pred_instances  # and its masks
            found = merged([whole, *self._in_tiles(image)])
            sample.pred_instances = InstanceData(bboxes=found.boxes, scores=found.scores, labels=found.labels)
            if found.masks is not None:
                sample.pred_instances.masks = [mask.run_lengths(width, height) for mask in found.masks]
        return samples

    def _in_tiles(self, image: np.ndarray) -> Iterator[Found]:
        height, width = image.shape[:2]
        tiles = tiles_of(width, height, self.size, self.overlap)
        for first in range(0, len(tiles), self.batch_size):
            batch = tiles[first:first + self.batch_size]
            inputs = pseudo_collate([self._input(image, tile) for tile in batch])
            for tile, sample in zip(batch, self.module.test_step(inputs)):
                yield Found.of(sample.pred_instances, tile, width, height)

    def _input(self, image: np.ndarray, tile: Tile) -> dict:
        part = np.ascontiguousarray(image[tile.top:tile.bottom, tile.left:tile.right])
        return self.pipeline(dict(img=part, img_shape=part.shape[:2], ori_shape=part.shape[:2]))


@METRICS.register_module()
class DumpRunLengths(DumpDetResults):
    """mmdet's ``DumpDetResults`` for masks that are run lengths already."""

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        masks = [sample['pred_instances'].get('masks') for sample in data_samples]
        super().process(data_batch, [
            {**sample, 'pred_instances': {k: v for k, v in sample['pred_instances'].items() if k != 'masks'}}
            for sample in data_samples])
        for result, of_image in zip(self.results[-len(masks):], masks):
            if of_image is not None:  # copies, since mmdet's metric turns the counts into text
                result['pred_instances']['masks'] = [dict(mask) for mask in of_image]


@VISUALIZERS.register_module()
class RunLengthVisualizer(DetLocalVisualizer):
    """mmdet's visualizer, which also draws masks that are run lengths; only a few are decoded at a time."""

    def _draw_instances(self, image: np.ndarray, instances: InstanceData, classes: list[str] | None,
                        palette: list[tuple] | None) -> np.ndarray:
        if not isinstance(instances.get('masks'), list):
            return super()._draw_instances(image, instances, classes, palette)
        for first in range(0, len(instances), _AT_A_TIME):
            group = instances[first:first + _AT_A_TIME]
            group.masks = coco_mask.decode(group.masks).transpose(2, 0, 1)
            image = super()._draw_instances(image, group, classes, palette)
        return image
