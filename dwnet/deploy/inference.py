"""Runs a trained model on images and videos; writes predictions as JSON, and pictures."""
import glob
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from dwnet.data.loading import LoadWholeImage
from dwnet.data.parts import images_below
from dwnet.engine.hooks.progress import ProgressLine
from dwnet.errors import UserError
from dwnet.inspect.samples import draw, make_visualizer

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
BEST = 5  # number of classes that are listed for an image

Frame = tuple[Any, np.ndarray]  # name, and pixels (H, W, 3), uint8, BGR


def find_files(arguments: Sequence[str]) -> list[Path]:
    """The files that the arguments name, each once: files, all images below folders, and matches of patterns.

    Raises:
        UserError: If an argument names nothing.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        if os.path.isdir(argument):
            files = [Path(argument, name) for name in images_below(Path(argument))]
        elif os.path.exists(argument):
            files = [Path(argument)]
        else:
            files = [Path(name) for name in sorted(glob.glob(argument, recursive=True)) if os.path.isfile(name)]
            if not files:
                raise UserError(f'{argument} is missing: no file or folder has this name, and none matches it')
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def predict(inferencer: Any, images: Sequence[np.ndarray]) -> list:
    """The data samples of images that share a batch.

    Args:
        inferencer: From :func:`dwnet.apis.inferencer`.
        images: Arrays (H, W, 3), uint8, BGR.
    """
    return [sample.cpu() for sample in inferencer.forward(_collated(inferencer, images))]


def _collated(inferencer: Any, images: Sequence[np.ndarray]) -> dict:
    batch, = inferencer.preprocess(list(images), batch_size=len(images))
    return batch if isinstance(batch, dict) else batch[1]  # mmdet's batch has the images in front


def infer(inferencer: Any, files: Sequence[Path], out: Path, batch_size: int = 1, threshold: float = .3,
          pictures: bool = True) -> dict[str, str]:
    """Predicts files, and writes ``predictions.json``, pictures and, for segmentation, label images below ``out``.

    Args:
        inferencer: From :func:`dwnet.apis.inferencer`.
        files: Images and videos; the suffix tells videos.
        out: The output folder, which is made. Outputs keep the files' places below the files' common folder.
        batch_size: Images in a batch; only images that reach the network in one size share a batch.
        threshold: Detections of a lower score are not drawn. The JSON has all detections.
        pictures: Draw pictures.

    Returns:
        The files that could not be read, or not completely, and why. The outputs of all other files are complete, even
        if the work is interrupted.

    Raises:
        UserError: If ``out`` is a file, or this kind of prediction cannot be written.
    """
    writer = _Writer(inferencer, files, out, threshold, pictures)
    any_size = _has_one_size(inferencer)
    left_out: dict[str, str] = {}
    entries: list[dict] = []
    stills = [file for file in files if not _is_video(file)]
    try:
        with _interrupted_by_sigterm(), ProgressLine() as progress:
            if stills:
                progress.add('images', len(stills))
            for batch in _batches(read_images(stills, left_out), batch_size, any_size):
                for (file, image), sample in _predict_stills(inferencer, batch, left_out):
                    entries.append(dict(image=str(file), **writer.write(file, image, sample)))
                progress.advance('images', len(batch))
            for file in files:
                if _is_video(file):
                    entries.extend(_infer_video(inferencer, file, writer, batch_size, progress, left_out))
    finally:
        lines = ',\n'.join(json.dumps(entry) for entry in entries)  # one line for each file
        (out / 'predictions.json').write_text(
            f'{{"classes": {json.dumps(writer.names)},\n"predictions": [\n{lines}\n],\n'
            f'"left_out": {json.dumps(left_out)}}}\n')
    return left_out


def _predict_stills(inferencer: Any, batch: list[Frame], left_out: dict[str, str]) -> Iterator[tuple[Frame, Any]]:
    """Yields images with their data samples; images that resizing reduces to nothing, as strips, go to ``left_out``."""
    try:
        yield from zip(batch, predict(inferencer, [image for _, image in batch]))
    except cv2.error:
        if len(batch) > 1:
            for frame in batch:
                yield from _predict_stills(inferencer, [frame], left_out)
        else:
            file, image = batch[0]
            left_out[str(file)] = f'{image.shape[1]}×{image.shape[0]} pixels cannot be resized for the network'


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the work as Ctrl-C does, so that written files are complete."""
    if threading.current_thread() is not threading.main_thread():  # other threads cannot set handlers
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEOS


def as_input(inferencer: Any, image: np.ndarray) -> Tensor:
    """Prepares an image, (H, W, 3), uint8, BGR, for the network: (1, 3, H', W'), float32, normalised."""
    return inferencer.model.data_preprocessor(_collated(inferencer, [image]), False)['inputs']


def read_images(files: Iterable[Path], left_out: dict[str, str]) -> Iterator[Frame]:
    """Yields the complete images among the files; puts the other files into ``left_out``, with the reason."""
    load = LoadWholeImage()
    for file in files:
        try:
            yield file, load.transform(dict(img_path=str(file)))['img']
        except ValueError as error:
            left_out[str(file)] = str(error.__cause__)


def _infer_video(inferencer: Any, file: Path, writer: '_Writer', batch_size: int, progress: ProgressLine,
                 left_out: dict[str, str]) -> list[dict]:
    """Writes the predictions of a video's frames as JSON lines, and the drawn frames as a video."""
    video = cv2.VideoCapture(str(file))
    rate, expected = video.get(cv2.CAP_PROP_FPS) or 25., max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    progress.add(file.name, expected)
    lines, drawn, number = writer.place('videos', file, '.jsonl'), None, 0
    try:
        with open(lines, 'w') as stream:
            for batch in _batches(_read_frames(video), batch_size, True):
                for (index, image), sample in zip(batch, predict(inferencer, [image for _, image in batch])):
                    entry = writer.describe(sample, writer.relative(file) / f'{index:06d}')
                    if writer.pictures:
                        picture = writer.draw(image, sample)[..., ::-1]
                        if drawn is None:
                            drawn = cv2.VideoWriter(
                                str(lines.with_suffix('.mp4')), cv2.VideoWriter_fourcc(*'mp4v'), rate,
                                (picture.shape[1], picture.shape[0]))
                        drawn.write(np.ascontiguousarray(picture))
                    stream.write(json.dumps(dict(frame=index, seconds=round(index / rate, 3), **entry)) + '\n')
                number += len(batch)
                progress.advance(file.name, len(batch))
    finally:  # without release() an interrupted video has no index, and players cannot open it
        video.release()
        if drawn is not None:
            drawn.release()
    if not number:
        lines.unlink()
        left_out[str(file)] = 'it has no frame that OpenCV can read'
        return []
    if number < expected - 1:  # containers miscount by one
        left_out[str(file)] = f'it ends or is damaged after {number} of {expected} frames; these are predicted'
    entry = dict(video=str(file), frames=number, predictions=str(lines.relative_to(writer.out)))
    if drawn is not None:
        entry['picture'] = str(lines.with_suffix('.mp4').relative_to(writer.out))
    return [entry]


def _read_frames(video: cv2.VideoCapture) -> Iterator[Frame]:
    index = 0
    while (frame := video.read()[1]) is not None:
        yield index, frame
        index += 1


def _has_one_size(inferencer: Any) -> bool:
    """Whether images of different sizes reach the network in one size, as cropping for classifiers does."""
    shapes = {_collated(inferencer, [np.zeros((*size, 3), np.uint8)])['inputs'][0].shape
              for size in ((300, 400), (400, 300), (500, 500))}
    return len(shapes) == 1


def _batches(frames: Iterable[Frame], size: int, any_size: bool) -> Iterator[list[Frame]]:
    """Batches of consecutive images that need no padding, so that predictions do not depend on the batch."""
    for _, group in groupby(frames, key=lambda frame: any_size or frame[1].shape):
        while batch := list(islice(group, size)):
            yield batch


class _Writer:
    """Writes predictions and pictures below a folder."""

    def __init__(self, inferencer: Any, files: Sequence[Path], out: Path, threshold: float, pictures: bool) -> None:
        self.out, self.pictures, self.threshold = out, pictures, threshold
        cfg, meta = inferencer.model.cfg, inferencer.model.dataset_meta
        self.names = list(meta.get('classes', ()))
        self.palette = meta.get('palette', [])
        self.visualizer = make_visualizer(cfg, meta, 'infer')
        self._root = os.path.commonpath([os.path.abspath(file.parent) for file in files])
        self._taken: set[Path] = set()
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f'{out} cannot be a folder: there is a file of this name; take another') from error

    def write(self, file: Path, image: np.ndarray, sample: Any) -> dict:
        """Draws an image, and returns its predictions for the JSON."""
        entry = dict(width=image.shape[1], height=image.shape[0], **self.describe(sample, self.relative(file)))
        if self.pictures:
            path = self.place('pictures', file, '.png')
            Image.fromarray(self.draw(image, sample)).save(path)
            entry['picture'] = str(path.relative_to(self.out))
        return entry

    def draw(self, image: np.ndarray, sample: Any) -> np.ndarray:
        return draw(self.visualizer, np.ascontiguousarray(image[..., ::-1]), sample, False, self.threshold)

    def describe(self, sample: Any, name: Path) -> dict:
        """Converts a data sample for JSON; ``name`` names the label image of a segmentor."""
        if 'pred_instances' in sample:
            return dict(objects=self._objects(sample.pred_instances))
        if 'pred_sem_seg' in sample:
            return self._segments(sample.pred_sem_seg.data[0].numpy(), name)
        if 'pred_score' not in sample:
            kinds = ', '.join(name for name, _ in sample.items() if name.startswith('pred_')) or 'none'
            raise UserError(f'predictions of the kind {kinds} cannot be written: only classes, objects and segments')
        scores = sample.pred_score
        best = scores.topk(min(BEST, len(scores)))
        return dict(classes=[dict(self._class(label), score=round(score, 6))
                             for score, label in zip(best.values.tolist(), best.indices.tolist())])

    def _objects(self, instances: Any) -> list[dict]:
        """Boxes are left, top, right, bottom, in pixels; masks are COCO's run lengths."""
        masks = instances.get('masks')
        objects = []
        for i, (label, score) in enumerate(zip(instances.labels.tolist(), instances.scores.tolist())):
            entry = dict(self._class(label), score=round(score, 6))
            if 'bboxes' in instances:
                entry['box'] = [round(value, 2) for value in instances.bboxes[i].tolist()]
            if masks is not None:
                run_lengths = masks[i] if isinstance(masks, list) else coco_mask.encode(
                    np.asfortranarray(masks[i].numpy().astype(np.uint8)))
                entry['mask'] = dict(size=list(run_lengths['size']), counts=run_lengths['counts'].decode())
            objects.append(entry)
        return objects

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
            self._class(label)['class']: round(count / labels.size, 6)
            for label, count in zip(values.tolist(), counts.tolist())})

    def _class(self, label: int) -> dict:
        return {'class': self.names[label] if label < len(self.names) else str(label), 'label': label}

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
