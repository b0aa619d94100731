"""Makes the digits data: handwriting on photographs, from data that scikit-learn ships. Nothing is downloaded.

The handwriting is the UCI digits data (1,797 digits of 8×8 pixels); the background is two photographs. Both come
with scikit-learn, so the three tasks can be trained and scored on any machine. One folder serves all tasks::

    digits/
      classification/{train,test}/{0…9}/00000.jpg    one digit each, 64×64
      scenes/{train,test}/00000.jpg                  several digits, 128×128
      annotations/{train,test}.json                  the scenes as COCO, with instance masks (RLE)
      labels/{train,test}/00000.png                  the scenes' pixels: 0 ground, 1 + digit
      manifest.json                                  the settings, and each file's checksum

A digit of the test part never occurs in the training part, nor in the training scenes.
"""
import colorsys
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from PIL import Image

from dwnet.errors import UserError, requires

CLASSES = tuple('0123456789')
ROOT = Path('data/digits')  # the configs expect the data here, below the current folder


class EmbeddedData(Protocol):
    """What the settings of an embedded data set tell; a frozen dataclass, whose fields the manifest keeps."""
    folders: ClassVar[tuple[str, ...]]

    @property
    def pictures(self) -> int: ...

    def draw(self, root: Path) -> Iterator[None]: ...


@dataclass(frozen=True)
class Scenes:
    """Settings of data that are scenes alone; equal settings give equal files. A subclass draws the scenes.

    Attributes:
        seed: Seed of all random choices.
        train_scenes: Number of training scenes.
        test_scenes: Number of test scenes.
        version: Version of the drawing code; to be raised with every change that alters the files.
    """
    seed: int = 0
    train_scenes: int = 1000
    test_scenes: int = 200
    version: int = 1

    @property
    def pictures(self) -> int:
        """How many pictures are drawn."""
        return self.train_scenes + self.test_scenes


@dataclass(frozen=True)
class DigitsConfig:
    """Settings of the data; equal settings give equal files.

    Attributes:
        seed: Seed of all random choices.
        renderings: Pictures of each training digit for classification; each test digit has one picture, or none if
            ``renderings`` is 0.
        train_scenes: Number of training scenes.
        test_scenes: Number of test scenes.
        version: Version of the drawing code; to be raised with every change that alters the files.
        folders: The folders below the data's root. A class attribute, as no setting changes it.
    """
    seed: int = 0
    renderings: int = 4
    train_scenes: int = 1000
    test_scenes: int = 200
    version: int = 1
    folders: ClassVar[tuple[str, ...]] = ('classification', 'scenes', 'annotations', 'labels')

    @property
    def pictures(self) -> int:
        """How many pictures are drawn."""
        # 1,347 training digits, three quarters of 1,797, and 450 test digits
        return 1347 * self.renderings + 450 * min(1, self.renderings) + self.train_scenes + self.test_scenes

    def draw(self, root: Path) -> Iterator[None]:
        """Draws and writes all files below ``root``; yields after each picture."""
        return _draw(root, self)


# --- Drawing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Glyph:
    """A digit in some size, to be drawn on a background."""
    label: int
    source: int  # index into scikit-learn's digits
    opacity: np.ndarray  # (h, w) float in [0, 1], cropped to the visible part


def draw_glyph(pixels: np.ndarray, label: int, source: int, size: int, degrees: float) -> Glyph:
    """Enlarges an 8×8 digit, values 0 to 16, to ``size`` pixels and rotates it."""
    image = Image.fromarray(np.pad(pixels, 1).astype(np.float32) / 16)
    image = image.resize((size * 10 // 8, ) * 2, Image.Resampling.BICUBIC)
    image = image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    opacity = np.clip((np.asarray(image) - .35) / .25, 0, 1)
    rows, columns = (np.flatnonzero((opacity > .5).any(axis)) for axis in (1, 0))
    return Glyph(label, source, opacity[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1])


def random_ink(rng: np.random.Generator) -> np.ndarray:
    """A bright colour, (3,) in [0, 255]."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0., .6), rng.uniform(.8, 1.))) * 255


def put_glyph(image: np.ndarray, glyph: Glyph, top: int, left: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a glyph onto ``image``, (H, W, 3) float, in place. Returns the covered pixels, (H, W) bool."""
    height, width = glyph.opacity.shape
    window = image[top:top + height, left:left + width]
    opacity = glyph.opacity[..., None]
    window += opacity * (random_ink(rng) - window)
    covered = np.zeros(image.shape[:2], bool)
    covered[top:top + height, left:left + width] = glyph.opacity > .5
    return covered


def background(photos: list[Image.Image], size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a random photograph, dimmed, (size, size, 3) float in [0, 127]."""
    photo = photos[rng.integers(len(photos))]
    side = int(rng.integers(size, min(photo.size) + 1))
    left, top = (int(rng.integers(whole - side + 1)) for whole in photo.size)
    crop = photo.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return np.asarray(crop).astype(np.float32) / 2


def to_image(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array.round().clip(0, 255).astype(np.uint8))


class Artist:
    """Draws the pictures of one part, train or test, from that part's digits only."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, indices: np.ndarray,
                 photos: list[Image.Image], rng: np.random.Generator) -> None:
        self.pixels, self.labels, self.indices = pixels, labels, indices
        self.photos, self.rng = photos, rng

    def glyph(self, index: int, smallest: int, largest: int) -> Glyph:
        return draw_glyph(self.pixels[index], int(self.labels[index]), int(index),
                           int(self.rng.integers(smallest, largest + 1)), self.rng.uniform(-15, 15))

    def portrait(self, index: int, size: int = 64) -> Image.Image:
        """One digit near the middle."""
        glyph = self.glyph(index, 28, 52)
        image = background(self.photos, size, self.rng)
        top, left = (
            int(np.clip((size - length) // 2 + self.rng.integers(-6, 7), 0, size - length))
            for length in glyph.opacity.shape)
        put_glyph(image, glyph, top, left, self.rng)
        return to_image(image)

    def scene(self, size: int = 128) -> tuple[Image.Image, list[tuple[Glyph, np.ndarray]]]:
        """Three to five digits that may overlap, and the visible pixels of each, (size, size) bool."""
        image = background(self.photos, size, self.rng)
        placed: list[tuple[Glyph, np.ndarray]] = []
        for _ in range(self.rng.integers(3, 6)):
            glyph = self.glyph(self.rng.choice(self.indices), 28, 56)
            for _ in range(20):  # attempts to find room
                top, left = (int(self.rng.integers(size - length + 1)) for length in glyph.opacity.shape)
                footprint = np.zeros((size, size), bool)
                footprint[top:top + glyph.opacity.shape[0], left:left + glyph.opacity.shape[1]] = (
                    glyph.opacity > .5)
                if all((mask & footprint).sum() <= .1 * mask.sum() for _, mask in placed):
                    covered = put_glyph(image, glyph, top, left, self.rng)
                    placed = [(other, mask & ~covered) for other, mask in placed]
                    placed.append((glyph, covered))
                    break
        return to_image(image), placed


# --- Writing -------------------------------------------------------------------------------------


def _write_part(root: Path, part: str, artist: Artist, renderings: int, scenes: int) -> Iterator[None]:
    """Writes one part; yields after each picture, so that the caller can show progress."""
    from pycocotools import mask as coco_mask

    for folder in (*(f'classification/{part}/{name}' for name in CLASSES), f'scenes/{part}',
                   f'labels/{part}', 'annotations'):
        (root / folder).mkdir(parents=True, exist_ok=True)

    for number in range(renderings * len(artist.indices)):
        index = artist.indices[number % len(artist.indices)]
        path = root / f'classification/{part}/{artist.labels[index]}/{number:05d}.jpg'
        artist.portrait(index).save(path, quality=95)
        yield

    palette = [0, 0, 0]
    for digit in range(len(CLASSES)):
        palette += [round(255 * v) for v in colorsys.hsv_to_rgb(digit / len(CLASSES), .75, 1)]
    coco = dict(
        images=[], annotations=[],
        categories=[dict(id=digit + 1, name=name) for digit, name in enumerate(CLASSES)])
    for number in range(scenes):
        image, placed = artist.scene()
        name = f'{number:05d}.jpg'
        image.save(root / f'scenes/{part}/{name}', quality=95)
        coco['images'].append(dict(id=number, file_name=name, width=image.width, height=image.height))
        labels = np.zeros((image.height, image.width), np.uint8)
        for glyph, mask in placed:
            labels[mask] = glyph.label + 1
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            coco['annotations'].append(dict(
                id=len(coco['annotations']) + 1, image_id=number, category_id=glyph.label + 1, iscrowd=0,
                area=int(mask.sum()), bbox=coco_mask.toBbox(rle).tolist(),
                segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
                digit=glyph.source))  # index into scikit-learn's digits
        png = Image.fromarray(labels, mode='P')
        png.putpalette(palette)
        png.save(root / f'labels/{part}/{number:05d}.png')
        yield
    (root / f'annotations/{part}.json').write_text(json.dumps(coco))


def artists(seed: int) -> dict[str, Artist]:
    """Who draws the parts ``'train'`` and ``'test'``; each has the digits of that part alone."""
    with requires('scikit-learn', 'demo', 'the embedded data set'):
        from sklearn.datasets import load_digits, load_sample_images
        from sklearn.model_selection import train_test_split
    digits = load_digits()
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    indices = train_test_split(np.arange(len(digits.target)), test_size=.25, stratify=digits.target, random_state=seed)
    return {part: Artist(digits.images, digits.target, its, photos, np.random.default_rng([seed, len(its)]))
            for part, its in zip(('train', 'test'), indices)}


def _draw(root: Path, config: DigitsConfig) -> Iterator[None]:
    """Draws and writes all files of ``config`` below ``root``."""
    counts = dict(train=(config.renderings, config.train_scenes), test=(min(1, config.renderings), config.test_scenes))
    for part, artist in artists(config.seed).items():
        yield from _write_part(root, part, artist, *counts[part])


def _checksums(root: Path) -> dict[str, int]:
    """CRC-32 of every file below ``root`` except the manifest."""
    files = sorted(p for p in root.rglob('*') if p.is_file() and p != root / 'manifest.json')
    return {p.relative_to(root).as_posix(): zlib.crc32(p.read_bytes()) for p in files}


def is_complete(root: str | os.PathLike, config: EmbeddedData = DigitsConfig()) -> bool:
    """Whether ``root`` holds the data of ``config``, with every file undamaged."""
    root = Path(root)
    try:
        manifest = json.loads((root / 'manifest.json').read_text())
        return manifest == dict(config=asdict(config), files=_checksums(root))
    except (OSError, ValueError):
        return False


def _refuse_foreign_folder(root: Path, folders: tuple[str, ...]) -> None:
    if root.exists() and (not root.is_dir() or {p.name for p in root.iterdir()} - {*folders, 'manifest.json'}):
        raise UserError(f'{root} holds other files than the digits; name a folder that is empty or new')


def prepare(root: str | os.PathLike, config: EmbeddedData = DigitsConfig(),
            show_progress: bool = True) -> bool:
    """Makes the data in ``root``, unless the folder holds complete and undamaged data.

    The files are written to a folder beside ``root``, which replaces ``root`` when all files are complete.

    Args:
        root: The folder, ``data/digits`` in the project's configs.
        config: Settings of the data.
        show_progress: Draw a progress bar.

    Returns:
        Whether the data had to be made.

    Raises:
        UserError: If ``root`` holds other files; nothing is changed then.
    """
    from filelock import FileLock
    from rich.progress import track

    root = Path(root).resolve()  # a link to another disk stays a link
    _refuse_foreign_folder(root, config.folders)
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{root}.lock'):  # two trainings may start together
        if is_complete(root, config):
            return False
        made = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
        try:
            pictures: Iterable[None] = config.draw(made)
            if show_progress:
                pictures = track(pictures, f'Drawing {root}', total=config.pictures)
            for _ in pictures:
                pass
            manifest = dict(config=asdict(config), files=_checksums(made))
            (made / 'manifest.json').write_text(json.dumps(manifest))
            made.chmod(0o755)
            if root.exists():
                shutil.rmtree(root)
            made.rename(root)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return True


def prepare_if_missing(*paths: str | os.PathLike) -> Path:
    """Makes the data in ``data/digits`` if one of ``paths`` is below that folder and the folder does not exist.

    An existing folder is left alone, because it may be the user's.

    Returns:
        ``data/digits``.
    """
    if not ROOT.exists() and are_in(ROOT, DigitsConfig.folders, paths):
        prepare(ROOT)
    return ROOT


def are_in(root: Path, folders: tuple[str, ...], paths: Iterable[str | os.PathLike]) -> bool:
    """Whether one of ``paths`` is in one of the ``folders`` of ``root``."""
    parts = [Path(os.path.normpath(path)).parts for path in paths]
    depth = len(root.parts)
    return any(part[:depth] == root.parts and part[depth:depth + 1] and part[depth] in folders for part in parts)


def main() -> None:
    """``python -m dwnet.demo.digits [FOLDER]``."""
    import argparse

    parser = argparse.ArgumentParser(
        prog='python -m dwnet.demo.digits',
        description='Makes the digits data if it is missing or damaged.',
        epilog='example: python -m dwnet.demo.digits data/digits')
    parser.add_argument('root', nargs='?', default=str(ROOT), help='default: %(default)s')
    root = parser.parse_args().root
    print(f'{root}: {"made" if prepare(root) else "complete, nothing to do"}')


if __name__ == '__main__':
    from dwnet.engine.exit_codes import run_command
    run_command(main)
