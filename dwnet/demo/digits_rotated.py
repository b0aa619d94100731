"""Makes scenes of turned digits with rotated boxes, from the same handwriting as :mod:`dwnet.demo.digits`.

The files lie as DOTA's do, cut into patches::

    digits_rotated/
      {train,test}/images/00000.png      three to five digits, each turned by up to 60 degrees, 128×128
      {train,test}/annfiles/00000.txt    a line for each digit: x and y of four corners, the digit, the difficulty 0
      manifest.json                      the settings, and each file's checksum

A box surrounds a digit as it stands upright, and is turned with the digit. The box's corners begin at the top left of
the upright digit and go clockwise. A digit of the test part never occurs in the training part.
"""
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from . import digits
from .digits import Artist, Glyph, background, draw_glyph, put_glyph, to_image

ROOT = Path('data/digits_rotated')  # the configs expect the data here, below the current folder
SIDE, SMALLEST, LARGEST, STEEPEST = 128, 28, 56, 60.  # pixels of a scene, of digits; degrees


@dataclass(frozen=True)
class RotatedDigits(digits.Scenes):
    """Settings of scenes of turned digits.

    Attributes:
        folders: The folders below the data's root.
    """
    folders: ClassVar[tuple[str, ...]] = ('train', 'test')

    def draw(self, root: Path) -> Iterator[None]:
        """Draws and writes all files below ``root``; yields after each picture."""
        scenes = dict(train=self.train_scenes, test=self.test_scenes)
        for part, artist in digits.artists(self.seed).items():
            images, annotations = root / part / 'images', root / part / 'annfiles'
            images.mkdir(parents=True)
            annotations.mkdir()
            for number in range(scenes[part]):
                image, placed = draw_scene(artist)
                image.save(images / f'{number:05d}.png')
                lines = [' '.join([*(f'{value:.2f}' for value in corners.ravel()), str(glyph.label), '0'])
                         for glyph, corners in placed]
                (annotations / f'{number:05d}.txt').write_text('\n'.join(lines) + '\n')
                yield


def draw_scene(artist: Artist) -> tuple[Image.Image, list[tuple[Glyph, np.ndarray]]]:
    """A scene, and its digits with their boxes' corners, (4, 2) float: x and y in pixels.

    The digits lie wholly in the scene, and their boxes hardly overlap.
    """
    rng = artist.rng
    image = background(artist.photos, SIDE, rng)
    placed: list[tuple[Glyph, np.ndarray]] = []
    taken = np.zeros((SIDE, SIDE), bool)
    for _ in range(rng.integers(3, 6)):
        index = int(rng.choice(artist.indices))
        upright = draw_glyph(artist.pixels[index], int(artist.labels[index]), index,
                              int(rng.integers(SMALLEST, LARGEST + 1)), 0.)
        glyph, corners = turn(upright, rng.uniform(-STEEPEST, STEEPEST))
        height, width = glyph.opacity.shape
        for _ in range(20):  # attempts to find room
            top, left = (int(rng.integers(SIDE - length + 1)) for length in (height, width))
            window = taken[top:top + height, left:left + width]
            inside = _inside(corners, height, width)
            if (window & inside).sum() <= .05 * inside.sum():
                put_glyph(image, glyph, top, left, rng)
                window |= inside
                placed.append((glyph, corners + (left, top)))
                break
    return to_image(image), placed


def turn(upright: Glyph, degrees: float) -> tuple[Glyph, np.ndarray]:
    """An upright digit, turned counter-clockwise, and its box's corners in the turned picture, (4, 2) float."""
    height, width = upright.opacity.shape
    turned = Image.fromarray(upright.opacity.astype(np.float32)).rotate(
        degrees, Image.Resampling.BICUBIC, expand=True)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    from_centre = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    corners = from_centre @ np.array([[cos, -sin], [sin, cos]]) + (turned.width / 2, turned.height / 2)
    return Glyph(upright.label, upright.source, np.asarray(turned).clip(0, 1)), corners


def _inside(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels of a picture whose centres lie in a box, (height, width) bool."""
    centres = np.stack(np.meshgrid(np.arange(width) + .5, np.arange(height) + .5), -1)
    edges = np.roll(corners, -1, 0) - corners
    to_pixels = centres[:, :, None] - corners  # (height, width, 4, 2)
    # clockwise corners, y downwards: inside is on the right of every edge
    return (edges[:, 0] * to_pixels[..., 1] - edges[:, 1] * to_pixels[..., 0] >= 0).all(-1)
