"""Writes predictions as JSON, label images and pictures."""
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from dwnet.errors import UserError
from dwnet.inspect.samples import as_picture, draw, make_visualizer
from dwnet.toolboxes.base import palette
from dwnet.toolboxes.pixels import has_own_range

COLOURS = palette(60)  # of identities
BEST = 5  # number of classes that are listed for an image
STEP = 1000  # from one segment of a class to its next, in the ids of panoptic predictions


class Writer:
    """Writes predictions and pictures below a folder."""

    def __init__(self, inferencer: Any, files: Sequence[Path], out: Path, threshold: float, pictures: bool) -> None:
        self.out, self.pictures, self.threshold = out, pictures, threshold
        cfg, meta = inferencer.model.cfg, inferencer.model.dataset_meta
        self.names = list(meta.get('classes', ()))
        self.palette = meta.get('palette', [])
        self.keypoints = meta.get('keypoint_id2name')
        self.visualizer = make_visualizer(cfg, meta, 'infer')
        self._stretch = has_own_range(cfg)
        self._root = os.path.commonpath([os.path.abspath(file.parent) for file in files])
        self._taken: set[Path] = set()
        make_folder(out)

    def write(self, file: Path, image: np.ndarray, sample: Any) -> dict:
        """Draws an image, and returns its predictions for the JSON."""
        entry = dict(width=image.shape[1], height=image.shape[0], **self.describe(sample, self.relative(file)))
        if self.pictures:
            path = self.place('pictures', file, '.png')
            Image.fromarray(self.draw(image, sample)).save(path)
            entry['picture'] = str(path.relative_to(self.out))
        return entry

    def draw(self, image: np.ndarray, sample: Any) -> np.ndarray:
        picture, threshold = as_picture(image, self._stretch), self.threshold
        if 'instances_id' in sample.get('pred_instances', ()):
            picture, sample = self._by_identity(picture, sample)
            threshold = 0.  # whatever its score, a followed object is drawn
        return draw(self.visualizer, picture, sample, False, threshold)

    def _by_identity(self, picture: np.ndarray, sample: Any) -> tuple[np.ndarray, Any]:
        """The picture with the masks of the objects that have an identity, and the objects to draw on it.

        Each object has the colour of its identity, and its number. mmdet changes the colours of masks at random in each
        frame, so the masks are drawn here.
        """
        instances = sample.pred_instances[sample.pred_instances.instances_id > 0]
        names = self.visualizer.dataset_meta['classes']
        instances.label_names = [f'{names[label]} #{identity}' for label, identity in zip(
            instances.labels.tolist(), instances.instances_id.tolist())]
        instances.labels = instances.instances_id % len(COLOURS)
        if 'masks' in instances:
            picture = picture.copy()
            for mask, label in zip(np.asarray(instances.pop('masks'), bool), instances.labels.tolist()):
                picture[mask] = picture[mask] // 2 + np.uint8(COLOURS[label]) // 2
        self.visualizer.dataset_meta = {**self.visualizer.dataset_meta, 'palette': COLOURS}
        return picture, type(sample)(pred_instances=instances)

    def describe(self, sample: Any, name: Path) -> dict:
        """Converts a data sample for JSON; ``name`` names the label image of a segmentor."""
        if 'keypoints' in sample.get('pred_instances', ()):
            return dict(objects=self._poses(sample.pred_instances))
        if 'polygons' in sample.get('pred_instances', ()):
            return dict(lines=_lines(sample.pred_instances))
        if 'pred_panoptic_seg' in sample:  # a model that also finds instances gives the same things twice
            return self._panoptic(sample.pred_panoptic_seg.sem_seg[0].numpy(), name)
        if 'pred_instances' in sample:
            return dict(objects=self._objects(sample.pred_instances))
        if 'pred_sem_seg' in sample:
            return self._segments(sample.pred_sem_seg.data[0].numpy(), name)
        if 'pred_score' not in sample:
            kinds = ', '.join(name for name, _ in sample.items() if name.startswith('pred_')) or 'none'
            raise UserError(f'predictions of the kind {kinds} cannot be written: only classes, objects, keypoints, '
                            'lines of text and segments')
        return best_classes(sample, self.names)

    def _objects(self, instances: Any) -> list[dict]:
        """Boxes are left, top, right, bottom, in pixels; masks are COCO's run lengths.

        Rotated boxes are x and y of the centre, width and height in pixels, and the angle in radians, clockwise; or x
        and y of four corners. ``track`` is the identity of an object that is followed through a video.
        """
        masks = instances.get('masks')
        identities = instances.instances_id.tolist() if 'instances_id' in instances else [0] * len(instances)
        objects = []
        for i, (label, score) in enumerate(zip(instances.labels.tolist(), instances.scores.tolist())):
            entry = dict(_class(label, self.names), score=round(score, 6))
            if identities[i]:
                entry['track'] = identities[i]
            if 'bboxes' in instances:
                numbers = instances.bboxes[i].tolist()
                kind = {5: 'rotated_box', 8: 'corners'}.get(len(numbers), 'box')
                entry[kind] = [round(value, 4 if place == 4 and kind == 'rotated_box' else 2)
                               for place, value in enumerate(numbers)]
            if masks is not None:
                run_lengths = masks[i] if isinstance(masks, list) else coco_mask.encode(
                    np.asfortranarray(masks[i].numpy().astype(np.uint8)))
                entry['mask'] = dict(size=list(run_lengths['size']), counts=run_lengths['counts'].decode())
            objects.append(entry)
        return objects

    def _poses(self, instances: Any) -> list[dict]:
        """A keypoint is x and y in pixels and a score."""
        names = self.keypoints or {i: str(i) for i in range(instances.keypoints.shape[1])}
        poses = []
        for i, (points, scores) in enumerate(zip(instances.keypoints.tolist(), instances.keypoint_scores.tolist())):
            entry: dict[str, Any] = dict(keypoints={
                names[k]: [round(x, 2), round(y, 2), round(score, 6)]
                for k, ((x, y), score) in enumerate(zip(points, scores))})
            if 'bboxes' in instances:
                entry['box'] = [round(value, 2) for value in instances.bboxes[i].tolist()]
            poses.append(entry)
        return poses

    def _segments(self, labels: np.ndarray, name: Path) -> dict:
        """Writes a label image: pixel values are classes, the palette has the classes' colours."""
        labels = labels.astype(np.int64)  # heads of one channel give 0. and 1.
        path = self.place('labels', Path(self._root, name), '.png')
        image = Image.fromarray(labels.astype(np.uint16 if labels.max() > 255 else np.uint8))
        if image.mode == 'L':
            image.putpalette([value for colour in self.palette[:256] for value in colour])
        image.save(path)
        values, counts = np.unique(labels, return_counts=True)
        return dict(labels=str(path.relative_to(self.out)), shares={
            _class(label, self.names)['class']: round(count / labels.size, 6)
            for label, count in zip(values.tolist(), counts.tolist())})

    def _panoptic(self, ids: np.ndarray, name: Path) -> dict:
        """Writes a PNG in COCO's panoptic form: a pixel's segment is red + 256 green + 65536 blue, and 0 is none.

        Args:
            ids: (H, W), ``class + STEP * number`` of each pixel's segment; the class after the last is none.
            name: The name of the image.
        """
        path = self.place('panoptic', Path(self._root, name), '.png')
        segments, colours = [], np.zeros((*ids.shape, 3), np.uint8)
        values, counts = np.unique(ids, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist()):
            if (label := value % STEP) < len(self.names):
                number = len(segments) + 1
                colours[ids == value] = number % 256, number // 256 % 256, number // 65536
                segments.append(dict(_class(label, self.names), id=number, share=round(count / ids.size, 6)))
        Image.fromarray(colours).save(path)
        return dict(panoptic=str(path.relative_to(self.out)), segments=segments)

    def relative(self, file: Path) -> Path:
        return Path(os.path.relpath(os.path.abspath(file), self._root))

    def place(self, folder: str, file: Path, suffix: str) -> Path:
        """The path for a file's output; two files that differ only in their suffix get different paths."""
        relative = self.relative(file)
        path = self.out / folder / relative.with_suffix(suffix)
        if path in self._taken:
            path = path.with_name(relative.name + suffix)
        self._taken.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def best_classes(sample: Any, names: Sequence[str]) -> dict:
    """The classes of the highest scores; of several labels all."""
    scores = sample.pred_score
    best = scores.topk(min(max(BEST, sample.pred_label.numel()), len(scores)))
    return dict(classes=[dict(_class(label, names), score=round(score, 6))
                         for score, label in zip(best.values.tolist(), best.indices.tolist())])


def _class(label: int, names: Sequence[str]) -> dict:
    return {'class': names[label] if label < len(names) else str(label), 'label': label}


def _lines(instances: Any) -> list[dict]:
    """Lines of text; a polygon is x and y of each corner in turn, in pixels."""
    return [dict(polygon=[round(float(value), 2) for value in polygon], score=round(score, 6))
            for polygon, score in zip(instances.polygons, instances.scores.tolist())]


def make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f'{out} cannot be a folder: there is a file of this name; take another') from error
