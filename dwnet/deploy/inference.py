"""Runs a trained model on images and videos; writes predictions as JSON, and pictures."""
import glob
import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from torch import Tensor, nn

from dwnet.data.decoding import kind_of
from dwnet.data.files import Files
from dwnet.engine.hooks.progress import ProgressLine
from dwnet.errors import UserError, one_line, some
from dwnet.toolboxes import toolbox_of_model
from dwnet.toolboxes.graphs import image_channels
from dwnet.toolboxes.pixels import has_own_range, reader_of

from .writing import Writer, best_classes, make_folder

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v')
ANIMATIONS = ('.gif', '.webp')  # images that may have several frames

Frame = tuple[Any, np.ndarray]  # name, and pixels as the model's reader returns them: usually (H, W, 3), uint8, BGR


def find_files(arguments: Sequence[str]) -> list[Path]:
    """The files that the arguments name, each once: files, all images below folders, and matches of patterns.

    ``camera:0`` and the like stand for themselves.

    Raises:
        UserError: If an argument names nothing.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        if os.path.isdir(argument):
            below = Files(Path(argument))
            files = [Path(argument, name) for name in below.images]
            for note in below.notes:
                print(f'note: {note}')
            if not files:
                raise UserError(f"no images in {argument}{below.others_below('')}")
        elif os.path.exists(argument) or _camera(Path(argument)) is not None:
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
        images: Arrays as the model's reader returns them: usually (H, W, 3), uint8, BGR.
    """
    return [sample.cpu() for sample in inferencer.forward(_collated(inferencer, images))]


def _collated(inferencer: Any, images: Sequence[np.ndarray]) -> dict:
    batch, = inferencer.preprocess(list(images), batch_size=len(images))
    # the images themselves are in front of mmdet's batch, and behind mmpose's
    return batch if isinstance(batch, dict) else next(part for part in batch if isinstance(part, dict))


def infer(inferencer: Any, files: Sequence[Path], out: Path, batch_size: int = 1, threshold: float = .3,
          pictures: bool = True, track: bool = False) -> dict[str, str]:
    """Predicts files, and writes ``predictions.json``, pictures and, for segmentation, label images below ``out``.

    Args:
        inferencer: From :func:`dwnet.apis.inferencer`.
        files: Images and videos; the suffix tells videos.
        out: The output folder, which is made. Outputs keep the files' places below the files' common folder.
        batch_size: Images in a batch; only images that reach the network in one size share a batch.
        threshold: Detections of a lower score are not drawn. The JSON has all detections.
        pictures: Draw pictures.
        track: Follow the objects of videos: the JSON has their identities, and the pictures show those that have one.

    Returns:
        The files that could not be read or predicted, or not completely, and why. The outputs of all other files are
        complete, even if the work is interrupted.

    Raises:
        UserError: If ``out`` is a file, or this kind of prediction cannot be written or followed.
    """
    toolbox = toolbox_of_model(inferencer.model)
    stills = [file for file in files if not _is_video(file)]
    if track and stills:
        raise UserError(f'--track follows objects through the frames of videos, and these are none: {some(stills)}')
    trackers = {file: toolbox.tracker() for file in files} if track else {}
    if toolbox.takes_videos:
        return _infer_clips(inferencer, files, out)
    writer = Writer(inferencer, files, out, threshold, pictures)
    any_size = _has_one_size(inferencer)
    left_out: dict[str, str] = {}
    entries: list[dict] = []
    try:
        with _interrupted_by_sigterm(), ProgressLine() as progress:
            if stills:
                progress.add('images', len(stills))
            for batch in _batches(read_images(inferencer.model, stills, left_out), batch_size, any_size):
                for (file, image), sample in _predict_stills(inferencer, batch, left_out):
                    with _left_out_if_it_fails(file, left_out):
                        entries.append(dict(image=str(file), **frames_of(file), **writer.write(file, image, sample)))
                progress.advance('images', len(batch))
            for file in files:
                if _is_video(file):
                    with _left_out_if_it_fails(file, left_out):
                        entries.extend(_infer_video(inferencer, file, writer, batch_size, trackers.get(file), progress,
                                                    left_out))
    finally:
        _write_predictions(out, writer.names, entries, left_out)
    return left_out


def _write_predictions(out: Path, names: Sequence[str], entries: list[dict], left_out: dict[str, str]) -> None:
    lines = ',\n'.join(json.dumps(entry) for entry in entries)  # one line for each file
    (out / 'predictions.json').write_text(
        f'{{"classes": {json.dumps(names)},\n"predictions": [\n{lines}\n],\n"left_out": {json.dumps(left_out)}}}\n')


def _infer_clips(inferencer: Any, files: Sequence[Path], out: Path) -> dict[str, str]:
    """Predicts each video as a whole; nothing is drawn. The arguments and the result are those of :func:`infer`."""
    make_folder(out)
    names = list(inferencer.model.dataset_meta.get('classes', ()))
    left_out: dict[str, str] = {}
    entries: list[dict] = []
    try:
        with _interrupted_by_sigterm(), ProgressLine() as progress:
            progress.add('videos', len(files))
            for file in files:
                if _is_video(file):
                    with _left_out_if_it_fails(file, left_out):
                        batch, = inferencer.preprocess([str(file)], batch_size=1)
                        sample, = inferencer.forward(batch)
                        entries.append(dict(video=str(file), **best_classes(sample.cpu(), names)))
                else:
                    left_out[str(file)] = 'it is no video, and this model predicts videos alone'
                progress.advance('videos', 1)
    finally:
        _write_predictions(out, names, entries, left_out)
    return left_out


def _predict_stills(inferencer: Any, batch: list[Frame], left_out: dict[str, str]) -> Iterator[tuple[Frame, Any]]:
    """Yields images with their data samples; images that cannot be predicted go to ``left_out``.

    Resizing reduces a strip of 3×2,000 pixels to nothing, and an image may be too large for the memory.
    """
    try:
        samples = predict(inferencer, [image for _, image in batch])
    except Exception as error:  # the steps of a pipeline and the layers of a model may raise anything
        if len(batch) > 1:
            for frame in batch:
                yield from _predict_stills(inferencer, [frame], left_out)
        else:
            file, image = batch[0]
            left_out[str(file)] = (f'{image.shape[1]}×{image.shape[0]} pixels cannot be resized or predicted '
                                   f'({one_line(error)[:200]})')
    else:
        yield from zip(batch, samples)


@contextmanager
def _left_out_if_it_fails(file: Path, left_out: dict[str, str]) -> Iterator[None]:
    """Puts a file whose predictions cannot be drawn or described into ``left_out``, with the reason."""
    try:
        yield
    except (UserError, OSError):  # the model has other predictions; the disk is full
        raise
    except Exception as error:  # a visualizer may raise anything
        left_out[str(file)] = one_line(error)


def frames_of(file: Path) -> dict[str, int]:
    """The number of frames of an animation, of which the first is predicted; empty for other images."""
    if file.suffix.lower() not in ANIMATIONS:
        return {}
    with Image.open(file) as image:
        frames = getattr(image, 'n_frames', 1)
    return dict(frames=frames) if frames > 1 else {}


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
    return file.suffix.lower() in VIDEOS or _camera(file) is not None


def _camera(file: Path) -> int | None:
    """The number of the camera that ``camera:0`` and the like name; None for a file."""
    kind, _, number = str(file).partition(':')
    return int(number) if kind == 'camera' and number.isdecimal() else None


def as_input(inferencer: Any, image: np.ndarray) -> Tensor:
    """Prepares an image, as its reader returns it, for the network: (1, C, H', W'), float32, normalised."""
    return inferencer.model.data_preprocessor(_collated(inferencer, [image]), False)['inputs']


def read_images(model: nn.Module, files: Iterable[Path], left_out: dict[str, str]) -> Iterator[Frame]:
    """Yields the complete images for a model; puts the other files into ``left_out``, with the reason."""
    load, channels = reader_of(model.cfg), image_channels(model)
    dtype = (model.cfg.get('pixels') or {}).get('dtype')
    for file in files:
        try:
            image = load.transform(dict(img_path=str(file)))['img']
        except ValueError as error:
            left_out[str(file)] = str(error.__cause__)
            continue
        if (its := image.shape[2] if image.ndim == 3 else 1) != channels:
            left_out[str(file)] = f'it has {its} channels, and the model takes {channels}'
        elif dtype and (of_file := kind_of(file).dtype) != dtype:
            left_out[str(file)] = f'its values are {of_file}, and the model takes {dtype}'
        else:
            yield file, image


def _infer_video(inferencer: Any, file: Path, writer: Writer, batch_size: int, tracker: Any, progress: ProgressLine,
                 left_out: dict[str, str]) -> list[dict]:
    """Writes the predictions of a video's frames as JSON lines, and the drawn frames as a video.

    A camera is read until Ctrl-C. ``tracker``, if any, is :meth:`dwnet.toolboxes.base.Toolbox.tracker`'s.
    """
    reader = reader_of(inferencer.model.cfg)
    if reader.color_type == 'unchanged':
        left_out[str(file)] = 'a video has colours of 8 bits, and the model takes images of another kind'
        return []
    camera, start = _camera(file), time.monotonic()
    video = cv2.VideoCapture(str(file) if camera is None else camera)
    rate, expected = video.get(cv2.CAP_PROP_FPS) or 25., max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    progress.add(file.name, expected)
    lines, drawn, number = writer.place('videos', file, '.jsonl'), None, 0
    try:
        with open(lines, 'w') as stream, suppress(*[KeyboardInterrupt] * (camera is not None)):
            for batch in _batches(_read_frames(video, reader.color_type == 'grayscale'), batch_size, True):
                for (index, image), sample in zip(batch, predict(inferencer, [image for _, image in batch])):
                    if tracker:
                        tracker.follow(sample)
                    entry = writer.describe(sample, writer.relative(file) / f'{index:06d}')
                    if writer.pictures:
                        picture = writer.draw(image, sample)[..., ::-1]
                        if drawn is None:
                            drawn = cv2.VideoWriter(
                                str(lines.with_suffix('.mp4')), cv2.VideoWriter_fourcc(*'mp4v'), rate,
                                (picture.shape[1], picture.shape[0]))
                        drawn.write(np.ascontiguousarray(picture))
                    seconds = index / rate if camera is None else time.monotonic() - start
                    stream.write(json.dumps(dict(frame=index, seconds=round(seconds, 3), **entry)) + '\n')
                    number += 1
                progress.advance(file.name, len(batch))
    finally:  # without release() an interrupted video has no index, and players cannot open it
        video.release()
        if drawn is not None:
            drawn.release()
    if not number:
        lines.unlink()
        left_out[str(file)] = f"{'it has' if camera is None else 'the camera gives'} no frame that OpenCV can read"
        return []
    if number < expected - 1:  # containers miscount by one
        left_out[str(file)] = f'it ends or is damaged after {number} of {expected} frames; these are predicted'
    entry = dict(video=str(file), frames=number, predictions=str(lines.relative_to(writer.out)))
    if drawn is not None:
        entry['picture'] = str(lines.with_suffix('.mp4').relative_to(writer.out))
    return [entry]


def _read_frames(video: cv2.VideoCapture, grey: bool) -> Iterator[Frame]:
    index = 0
    while (frame := video.read()[1]) is not None:
        yield index, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if grey else frame
        index += 1


def _has_one_size(inferencer: Any) -> bool:
    """Whether images of different sizes reach the network in one size, as cropping for classifiers does."""
    kind = np.float32 if has_own_range(inferencer.model.cfg) else np.uint8
    channels = image_channels(inferencer.model)
    shapes = {_collated(inferencer, [np.zeros((*size, channels), kind)])['inputs'][0].shape
              for size in ((300, 400), (400, 300), (500, 500))}
    return len(shapes) == 1


def _batches(frames: Iterable[Frame], size: int, any_size: bool) -> Iterator[list[Frame]]:
    """Batches of consecutive images that need no padding, so that predictions do not depend on the batch."""
    for _, group in groupby(frames, key=lambda frame: any_size or frame[1].shape):
        while batch := list(islice(group, size)):
            yield batch
