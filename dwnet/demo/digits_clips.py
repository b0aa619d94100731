"""Makes clips of moving digits, from the same handwriting as :mod:`dwnet.demo.digits`.

The files lie as those of mmaction's video data sets do::

    digits_clips/
      {train,test}/00000.avi     one digit that crosses a photograph, 8 frames of 48×48
      train.txt  test.txt        a line for each clip: its file and its digit
      manifest.json              the settings, and each file's checksum

At the first and at the last frame a part of the digit may lie outside of the picture, so that several frames tell
more than one. A digit of the test part never occurs in the training part.
"""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from dwnet.errors import UserError

from . import digits
from .digits import Artist, background, random_ink

ROOT = Path('data/digits_clips')  # the configs expect the data here, below the current folder
SIDE, FRAMES = 48, 8  # pixels; pictures of a clip
SMALLEST, LARGEST = 24, 36  # pixels of a digit


@dataclass(frozen=True)
class DigitClips:
    """Settings of the data; equal settings give equal files.

    Attributes:
        seed: Seed of all random choices.
        train_clips: Number of training clips.
        test_clips: Number of test clips.
        version: Version of the drawing code; to be raised with every change that alters the files.
        folders: The folders and lists below the data's root.
    """
    seed: int = 0
    train_clips: int = 1347
    test_clips: int = 450
    version: int = 1
    folders: ClassVar[tuple[str, ...]] = ('train', 'test', 'train.txt', 'test.txt')

    @property
    def pictures(self) -> int:
        """How many clips are drawn."""
        return self.train_clips + self.test_clips

    def draw(self, root: Path) -> Iterator[None]:
        """Draws and writes all files below ``root``; yields after each clip."""
        clips = dict(train=self.train_clips, test=self.test_clips)
        for part, artist in digits.artists(self.seed).items():
            (root / part).mkdir(parents=True)
            lines = []
            for number in range(clips[part]):
                index = int(artist.indices[number % len(artist.indices)])
                write_clip(root / part / f'{number:05d}.avi', draw_clip(artist, index))
                lines.append(f'{number:05d}.avi {artist.labels[index]}\n')
                yield
            (root / f'{part}.txt').write_text(''.join(lines))


def draw_clip(artist: Artist, index: int) -> np.ndarray:
    """A digit that crosses a photograph on a straight line, (FRAMES, SIDE, SIDE, 3), uint8, RGB."""
    rng = artist.rng
    glyph = artist.glyph(index, SMALLEST, LARGEST)
    ink, opacity = random_ink(rng), glyph.opacity[..., None]
    height, width = glyph.opacity.shape
    ground = np.pad(background(artist.photos, SIDE, rng), ((SIDE, SIDE), (SIDE, SIDE), (0, 0)))
    # the digit's middle, from one side of the picture to the other
    ends = np.array([[rng.uniform(0, .4), rng.uniform(.2, .8)], [rng.uniform(.6, 1), rng.uniform(.2, .8)]]) * SIDE
    if rng.random() < .5:
        ends = ends[::-1]
    if rng.random() < .5:
        ends = ends[:, ::-1]
    frames = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
    for frame, share in zip(frames, np.linspace(0, 1, FRAMES)):
        x, y = ends[0] + share * (ends[1] - ends[0]) + SIDE
        top, left = round(y - height / 2), round(x - width / 2)
        picture = ground.copy()
        window = picture[top:top + height, left:left + width]
        window += opacity * (ink - window)
        frame[:] = picture[SIDE:-SIDE, SIDE:-SIDE].round().clip(0, 255)
    return frames


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Writes (T, H, W, 3), uint8, RGB, as JPEG pictures in an AVI, by OpenCV's own encoder.

    Raises:
        UserError: If OpenCV cannot write the file.
    """
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter_fourcc(*'MJPG'), 8., frames.shape[2:0:-1])
    if not writer.isOpened():
        raise UserError(f'{path} cannot be written by this OpenCV: pip install opencv-python-headless')
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
