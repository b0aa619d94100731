"""Reads label images; those in colours, in steps of grey and of other kinds are written anew.

A label image for a training has one channel, in which a pixel's number is its class and 255 means "ignore this pixel".
"""
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from dwnet.errors import UserError, some

from .files import Files, with_progress
from .label_values import COLOUR, IGNORED, meaning_of, what_is_in
from .legend import Legend, read_legend
from .own import write_whole

T = TypeVar('T')
_MOST_COLOURS = 1000  # in a label image; a photograph has more


def read_labels(files: Files, masks: Iterable[str], out: Path,
                notes: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Reads all label images.

    Args:
        files: The files below the data root.
        masks: The names of the label images.
        out: The folder for label images that are written anew.
        notes: What the user should know is added.

    Returns:
        The names of the classes; label image → its name, or the path of what was written in its place; and the label
        images that are broken.

    Raises:
        UserError: If pixels mean no class.
    """
    legend, masks, broken = read_legend(files), list(masks), []
    found: dict[str, tuple[frozenset[int], bool]] = {}
    pixels: Counter[int] = Counter()
    first: dict[int, str] = {}
    seen = _in_threads(lambda mask: _count(files.path(mask), legend), masks, 'reading label images')
    for mask, each in zip(masks, seen):
        if each is None:
            broken.append(mask)
            continue
        counts, plain = each
        found[mask] = frozenset(counts), plain
        pixels.update(counts)
        first.update({value: mask for value in counts if value not in first})
    if not found:
        raise UserError(f'none of the {len(broken)} label images below {files.root} can be read ({some(broken, 2)}): '
                        'write them again, as PNG')
    classes, label_of = meaning_of(files, legend, pixels, first, notes)
    if len(set(label_of.values()) - {IGNORED}) < 2:
        raise UserError(f'{what_is_in(files, pixels)}: one class alone, with which there is nothing to learn')

    def write(mask: str) -> str:
        codes, _ = _read(files.path(mask), legend)
        values, places = np.unique(codes, return_inverse=True)
        labels = np.array([label_of[value] for value in values.tolist()], np.uint8)[places].reshape(codes.shape)
        content = io.BytesIO()
        Image.fromarray(labels).save(content, 'PNG')
        ending = '' if mask.lower().endswith('.png') else '.png'
        return write_whole(out / 'labels' / f'{mask}{ending}', content.getvalue())

    anew = [mask for mask, (values, plain) in found.items() if not plain or any(label_of[v] != v for v in values)]
    names = {mask: mask for mask in found}
    names.update(zip(anew, _in_threads(write, anew, 'writing label images')))
    return classes, names, broken


def _in_threads(work: Callable[[str], T], masks: list[str], what: str) -> Iterator[T]:
    """The results, in order; after an error, what is waiting is not begun."""
    with ThreadPoolExecutor() as threads:
        futures = [threads.submit(work, mask) for mask in masks]
        try:
            for future in with_progress(futures, what):
                yield future.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _count(file: Path, legend: Legend | None) -> tuple[dict[int, int], bool] | None:
    """Value, or number of a colour → pixels; and whether the file is plain. None if it cannot be read."""
    try:
        codes, plain = _read(file, legend)
    except UserError:
        raise
    except Exception:  # a damaged file may raise anything
        return None
    if codes.dtype == np.uint8:  # without sorting
        counts = np.bincount(codes.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(codes, return_counts=True)
    if len(values) > _MOST_COLOURS:
        raise UserError(f'{file} has {len(values)} colours or values: a label image has one for each class; write it '
                        'without smoothing')
    return dict(zip(values.tolist(), counts.tolist())), plain


def _read(file: Path, legend: Legend | None) -> tuple[np.ndarray, bool]:
    """The values of a label image, or the numbers of its colours; and whether it has one channel of whole numbers."""
    with Image.open(file) as image:
        by_palette = image.mode == 'P' and legend is not None and _is_in_colours(image, legend)
        if image.mode in ('1', 'L', 'P', 'I;16', 'I') and not by_palette:
            values = np.asarray(image)
            return values.astype(np.uint8) if image.mode == '1' else values, True
        if image.mode in ('F', 'I;16B', 'I;16L', 'I;16N'):
            values = np.asarray(image)
            if not np.array_equal(values, values.astype(np.int64)):
                raise UserError(f'{file} holds fractions: the pixels of a label image are the numbers of classes')
            return values.astype(np.int64), False
        colours = np.asarray(image.convert('RGB'))
    red, green, blue = np.moveaxis(colours, -1, 0)
    if (red == green).all() and (green == blue).all():
        return red, False
    return COLOUR + 65536 * red.astype(np.int32) + 256 * green.astype(np.int32) + blue, False


def _is_in_colours(image: Image.Image, legend: Legend) -> bool:
    """Whether all colours of an image with a palette, but that of label 255, are in the legend."""
    palette = np.array(image.getpalette('RGB')).reshape(-1, 3)
    used = [value for value in np.unique(np.asarray(image)).tolist() if value != IGNORED]
    return all(value < len(palette) and tuple(palette[value].tolist()) in legend.colours for value in used)
