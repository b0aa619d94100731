"""Images with label images: ``ROOT/images/{train,val}`` and ``ROOT/masks/{train,val}``, or both without a split.

``masks`` may be called ``labels`` or ``annotations``. The names of the classes are in ``ROOT/classes.txt`` or
``labels.txt``, one a line. Each part has the folders ``images`` and ``masks``, the endings of their file names,
``img_suffix`` and ``seg_map_suffix``, and, if the part has only some of the images, ``ann_file``, a list of names.
"""
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from dwnet.errors import UserError, some

from .parts import OwnData, held_out, images_below, parts_below, write_split

NEEDS = 'the folders images and masks (or labels, or annotations), with a label image for each image'
_IGNORED = 255  # the label of pixels without a class
_LOOKED_AT = 100  # label images whose size is compared with the image's
_ORIENTATION = 0x0112  # the tag of EXIF: 5 to 8 lie on their side


def find(root: Path, split: Path) -> OwnData | None:
    """The data below ``root``; None if there are none of this form. Lists of a split are written into ``split``."""
    images = root / 'images'
    masks = next((path for name in ('masks', 'labels', 'annotations') if (path := root / name).is_dir()), None)
    if not images.is_dir() or masks is None:
        return None
    parts = {part: folder.relative_to(images).as_posix() for part, folder in parts_below(images).items()} or dict(
        all='.')
    pairs = {part: _pairs(images / name, masks / name) for part, name in parts.items()}
    classes = _class_names(root, [(masks / name, pairs[part]) for part, name in parts.items()])
    found, sizes = {}, {}
    for part, name in parts.items():
        stems, suffix, mask_suffix = pairs[part]
        where = dict(images=str(images / name), masks=str(masks / name), img_suffix=suffix, seg_map_suffix=mask_suffix)
        if part != 'all':
            found[part], sizes[part] = where, len(stems)
            continue
        if len(stems) < 2:
            raise UserError(f'{images} has one image: one to train with and one to validate with is needed')
        held_back = held_out(stems)
        for own in ('train', 'val'):
            chosen = [stem for stem in stems if (stem in held_back) == (own == 'val')]
            found[own] = {**where, 'ann_file': write_split(split, f'{own}.txt', '\n'.join(chosen) + '\n')}
            sizes[own] = len(chosen)
    return OwnData(root, classes, sizes, found)


def _pairs(images: Path, masks: Path) -> tuple[list[str], str, str]:
    """The names of the images without the ending, the ending of the images, and the ending of the masks."""
    names = images_below(images)
    suffixes = sorted({Path(name).suffix for name in names})
    if len(suffixes) > 1:
        raise UserError(f'the images in {images} end in {some(suffixes)}: a data set has one ending, so rename or '
                        'convert them')
    if not masks.is_dir():
        raise UserError(f'{masks} is missing: the label images of {images}')
    stems = [name.removesuffix(suffixes[0]) for name in names]
    there = {path.relative_to(masks).as_posix() for path in masks.rglob('*') if path.is_file()}
    endings = sorted({name.removeprefix(stems[0]) for name in there if name.startswith(stems[0])} or {'.png'})
    ending = min(endings, key=lambda ending: sum(stem + ending not in there for stem in stems))
    if missing := [stem + ending for stem in stems if stem + ending not in there]:
        raise UserError(f'{len(missing)} of {len(stems)} images in {images} have no label image: {masks} lacks '
                        f'{some(missing)}')
    if ending.lower().endswith(('.jpg', '.jpeg')):
        raise UserError(f'the label images in {masks} are JPEG, which changes labels: write them as PNG')
    for i in np.unique(np.linspace(0, len(stems) - 1, _LOOKED_AT).astype(int)):
        image, mask = images / names[i], masks / (stems[i] + ending)
        sizes = _size(image), _size(mask)
        if None not in sizes and sizes[0] != sizes[1]:
            raise UserError(f"{mask} has {' × '.join(map(str, sizes[1]))} pixels and {image} has "
                            f"{' × '.join(map(str, sizes[0]))}: a label image needs the size of its image, as a viewer "
                            'shows the image; scale the label image (by nearest neighbour), or export it again')
    return stems, suffixes[0], ending


def _size(file: Path) -> tuple[int, int] | None:
    """Width and height as the training sees them, with the orientation in EXIF; None if the file is broken."""
    try:
        with Image.open(file) as image:
            return image.size[::-1] if image.getexif().get(_ORIENTATION, 1) > 4 else image.size
    except (OSError, ValueError, SyntaxError):  # reading the file reports the error
        return None


def _class_names(root: Path, masks: Iterable[tuple[Path, tuple[list[str], str, str]]]) -> list[str]:
    """The classes in classes.txt or labels.txt, one a line, or else the labels' numbers. Reads all label images."""
    files = [folder / f'{stem}{ending}' for folder, (stems, _, ending) in masks for stem in stems]
    listed = next((path for name in ('classes.txt', 'labels.txt') if (path := root / name).is_file()), None)
    if listed is not None:
        try:
            lines = listed.read_text(encoding='utf-8-sig').splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f'{listed} is no text in UTF-8: save it again in that encoding') from error
        classes = [line.strip() for line in lines if line.strip()]
    values: Counter = Counter()
    for file in track(files, 'reading label images', console=Console(stderr=True), transient=True,
                      disable=not sys.stderr.isatty()):
        values.update(_values(file))
    labels = sorted(set(values) - {_IGNORED})
    if listed is None:
        classes = [str(label) for label in range(max(labels, default=0) + 1)]
    where = f'the label images of {root} hold the values {some(sorted(values), 20)}'
    if set(labels) <= {0} and _IGNORED in values:
        raise UserError(f'{where}, and 255 means "ignore this pixel": write 1 in its place for an object')
    if len(labels) < 2:
        raise UserError(f'{where}: one class alone, with which there is nothing to learn')
    if labels[-1] >= len(classes):
        raise UserError(f'{where}, and {listed} names {len(classes)} classes, 0 to {len(classes) - 1}; add the names, '
                        'or mend the masks (255 means "ignore this pixel")')
    return classes


def _values(file: Path) -> list[int]:
    try:
        with Image.open(file) as image:
            if len(image.getbands()) > 1:
                raise UserError(f'{file} is a colour image ({image.mode}): each pixel of a label image has one number, '
                                'that of its class; write it with one channel, or with a palette')
            return [int(value) for value in np.unique(np.asarray(image))]
    except (OSError, ValueError) as error:
        raise UserError(f'{file} cannot be read: {error}') from error
