"""Makes lines of digits as text, from the same handwriting as :mod:`dwnet.demo.digits`.

The files lie as those of mmocr's data sets do::

    digits_text/
      {train,test}/00000.jpg     one to three lines of two to four digits, turned by up to 15 degrees, 128×128
      train.json  test.json      mmocr's annotations: polygon, box and text of each line
      manifest.json              the settings, and each file's checksum

A polygon has the four corners of a line, clockwise from the top left of its first digit. A digit of the test part never
occurs in the training part.
"""
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from . import digits
from .digits import Artist, Glyph, background, draw_glyph, put_glyph, to_image

ROOT = Path('data/digits_text')  # the configs expect the data here, below the current folder
SIDE, SMALLEST, LARGEST, STEEPEST = 128, 20, 28, 15.  # pixels of a scene, of digits; degrees
MARGIN = 2  # pixels of a line around its digits


@dataclass(frozen=True)
class DigitText(digits.Scenes):
    """Settings of lines of digits.

    Attributes:
        folders: The folders and annotation files below the data's root.
    """
    train_scenes: int = 320
    test_scenes: int = 80
    folders: ClassVar[tuple[str, ...]] = ('train', 'test', 'train.json', 'test.json')

    def draw(self, root: Path) -> Iterator[None]:
        """Draws and writes all files below ``root``; yields after each picture."""
        scenes = dict(train=self.train_scenes, test=self.test_scenes)
        for part, artist in digits.artists(self.seed).items():
            (root / part).mkdir(parents=True)
            entries = []
            for number in range(scenes[part]):
                image, lines = draw_scene(artist)
                image.save(root / part / f'{number:05d}.jpg', quality=95)
                entries.append(dict(
                    img_path=f'{part}/{number:05d}.jpg', height=SIDE, width=SIDE, instances=[_instance(*line)
                                                                                            for line in lines]))
                yield
            (root / f'{part}.json').write_text(json.dumps(dict(
                metainfo=dict(dataset_type='TextDetDataset', task_name='textdet', category=[dict(id=0, name='text')]),
                data_list=entries)))


def _instance(text: str, corners: np.ndarray) -> dict:
    """A line as mmocr's annotations have it."""
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return dict(polygon=corners.round(2).ravel().tolist(), bbox=[round(v, 2) for v in (left, top, right, bottom)],
                bbox_label=0, ignore=False, text=text)


def draw_scene(artist: Artist) -> tuple[Image.Image, list[tuple[str, np.ndarray]]]:
    """A scene, and its lines: text, and corners, (4, 2) float, x and y in pixels.

    The lines lie wholly in the scene, and do not meet.
    """
    rng = artist.rng
    image = background(artist.photos, SIDE, rng)
    lines: list[tuple[str, np.ndarray]] = []
    taken = np.zeros((SIDE, SIDE), bool)
    for _ in range(rng.integers(1, 4)):
        text, upright = draw_line(artist)
        opacity, corners = turn(upright, rng.uniform(-STEEPEST, STEEPEST))
        height, width = opacity.shape
        if max(height, width) > SIDE:
            continue
        for _ in range(20):  # attempts to find room
            top, left = int(rng.integers(SIDE - height + 1)), int(rng.integers(SIDE - width + 1))
            window = taken[top:top + height, left:left + width]
            if not window.any():
                put_glyph(image, Glyph(-1, -1, opacity), top, left, rng)  # the line as one glyph, in one ink
                window[:] = True
                lines.append((text, corners + [left, top]))
                break
    return to_image(image), lines


def draw_line(artist: Artist) -> tuple[str, np.ndarray]:
    """Two to four digits side by side: text, and opacity, (h, w) float in [0, 1]."""
    rng = artist.rng
    size = int(rng.integers(SMALLEST, LARGEST + 1))
    indices = rng.choice(artist.indices, rng.integers(2, 5))
    glyphs = [draw_glyph(artist.pixels[i], int(artist.labels[i]), int(i), size, 0.).opacity for i in indices]
    height = max(len(opacity) for opacity in glyphs)
    gap = np.zeros((height, max(2, size // 8)))
    parts = [np.pad(opacity, ((height - len(opacity), 0), (0, 0))) for opacity in glyphs]  # on one base line
    line = np.hstack([part for pair in zip(parts, [gap] * len(parts)) for part in pair][:-1])
    return ''.join(str(artist.labels[i]) for i in indices), np.pad(line, MARGIN)


def turn(opacity: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Turns a line clockwise: its opacity, and its corners in the turned picture, (4, 2) float, x and y in pixels."""
    height, width = opacity.shape
    turned = np.asarray(Image.fromarray(opacity.astype(np.float32)).rotate(
        -degrees, Image.Resampling.BILINEAR, expand=True))
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    return turned.clip(0, 1), corners @ [[cosine, sine], [-sine, cosine]] + [turned.shape[1] / 2, turned.shape[0] / 2]
