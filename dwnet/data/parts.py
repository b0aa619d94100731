"""What all forms of a user's data share: a result, the names of parts, a split, the images in a folder."""
import colorsys
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dwnet.errors import UserError, some

_IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm')
_PARTS = dict(train=('train', 'training'), val=('val', 'valid', 'validation'), test=('test', 'testing'))
_SHARE = 5  # one image of five validates


class OwnData(NamedTuple):
    """The data that a form has found below a folder.

    Attributes:
        root: The folder.
        classes: The names of the classes; label i is the i-th.
        sizes: Images of 'train' and 'val', and of 'test' if there is such a part.
        parts: What a toolbox needs to read 'train', 'val' and 'test'. Classification: ``ann_file``, a list of images
            and labels. Detection: ``ann_file``, a COCO file, and ``images``, a folder. Segmentation: ``images`` and
            ``masks``, folders, ``img_suffix`` and ``seg_map_suffix``, and maybe ``ann_file``, a list of names.
        with_masks: Whether each object has a mask; only in detection.
    """
    root: Path
    classes: list[str]
    sizes: dict[str, int]
    parts: dict[str, dict[str, str]]
    with_masks: bool = False


def part_of(name: str) -> str | None:
    return next((part for part, names in _PARTS.items() if name.lower() in names), None)


def folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))


def parts_below(folder: Path) -> dict[str, Path]:
    """'train', 'val' and 'test' → their folders, if there is a 'train'."""
    parts = {part: path for path in folders_in(folder) if (part := part_of(path.name))}
    if 'train' not in parts:
        return {}
    return with_val(parts, folder)


def with_val(parts: dict, where: Path) -> dict:
    """Validates with the test set if there is no 'val', and prints that."""
    if 'val' not in parts:
        if 'test' not in parts:
            raise UserError(f'{where} has training data and none to validate with: name a part of them val, or give '
                            'all without a split, and a fifth of them is held back')
        print(f'{where} has no val: test validates. The best checkpoint is chosen on it, so its score is too good')
        parts['val'] = parts.pop('test')
    return parts


def held_out(items: Sequence[str]) -> set[str]:
    """The held-out fifth: the names with the lowest checksums, so every machine chooses the same images."""
    ordered = sorted(items, key=lambda name: (zlib.crc32(name.encode()), name))
    return set(ordered[:max(1, len(items) // _SHARE)])


def write_split(split: Path, name: str, content: str) -> str:
    split.mkdir(parents=True, exist_ok=True)
    unfinished = split / f'.{name}.{os.getpid()}'  # several processes may write the file
    unfinished.write_text(content, encoding='utf-8')
    os.replace(unfinished, split / name)
    return str(split / name)


def images_below(folder: Path) -> list[str]:
    """The sorted paths, relative to ``folder``, of all images below ``folder`` that are not hidden.

    Raises:
        UserError: If there are no images.
    """
    files = [path for path in folder.rglob('*') if path.is_file() and not any(
        part.startswith('.') for part in path.relative_to(folder).parts)]  # such as .ipynb_checkpoints
    images = sorted(path.relative_to(folder).as_posix() for path in files if path.suffix.lower() in _IMAGES)
    if not images:
        others = Counter(path.suffix.lower() or 'without an ending' for path in files).most_common(3)
        there = f", but {some(f'{count} files {suffix}' for suffix, count in others)}" if others else ''
        raise UserError(f'no images in {folder}{there}; images end in {some(_IMAGES, 20)}, convert others')
    return images


def palette(number: int) -> list[tuple[int, ...]]:
    """Colours that are easy to tell apart."""
    colours = [colorsys.hsv_to_rgb(i * .618 % 1, .75, 1 - .25 * (i % 2)) for i in range(number)]
    return [tuple(round(255 * part) for part in colour) for colour in colours]
