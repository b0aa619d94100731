"""What the pixels of label images mean; colours, and steps of grey, are written anew as numbers of classes.

A label image for a training has one channel, in which a pixel's number is its class and 255 means "ignore this pixel".
"""
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from dwnet.errors import UserError, some

from .files import Files, with_progress
from .legend import Legend, read_legend
from .own import write_whole

_IGNORED = 255  # the label of pixels without a class
_LISTS = ('classes.txt', 'labels.txt', 'class_names.txt', 'codes.txt')
_COLOUR = 2**24  # is added to the number of a colour, red · 65,536 + green · 256 + blue
_MOST_COLOURS = 1000  # in a label image; a photograph has more
_BORDER = (224, 224, 192)  # Pascal VOC's colour of pixels without a class
_STEP = 8  # a gap between all values that is as wide tells steps of grey from numbers of classes
_NUMBERED = 200  # the most classes that need no list of names; smoothed masks have values up to 255


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
    legend, broken = read_legend(files), []
    found: dict[str, tuple[frozenset[int], bool]] = {}
    pixels: Counter[int] = Counter()
    first: dict[int, str] = {}
    for mask in with_progress(list(masks), 'reading label images'):
        try:
            codes, plain = _read(files.path(mask), legend)
        except (OSError, ValueError, SyntaxError):  # Pillow's errors for damaged files
            broken.append(mask)
            continue
        values, counts = (each.tolist() for each in np.unique(codes, return_counts=True))
        if len(values) > _MOST_COLOURS:
            raise UserError(f'{files.path(mask)} has {len(values)} colours or values: a label image has one for each '
                            'class; write it without smoothing')
        found[mask] = frozenset(values), plain
        pixels.update(dict(zip(values, counts)))
        first.update({value: mask for value in values if value not in first})
    if not found:
        raise UserError(f'none of the {len(broken)} label images below {files.root} can be read ({some(broken, 2)}): '
                        'write them again, as PNG')
    classes, label_of = _meaning(files, legend, pixels, first, notes)
    if len(set(label_of.values()) - {_IGNORED}) < 2:
        raise UserError(f'{_holds(files, pixels)}: one class alone, with which there is nothing to learn')
    names = {mask: mask for mask in found}
    anew = [mask for mask, (values, plain) in found.items() if not plain or any(label_of[v] != v for v in values)]
    for mask in with_progress(anew, 'writing label images'):
        codes, _ = _read(files.path(mask), legend)
        values, places = np.unique(codes, return_inverse=True)
        labels = np.array([label_of[value] for value in values.tolist()], np.uint8)[places].reshape(codes.shape)
        content = io.BytesIO()
        Image.fromarray(labels).save(content, 'PNG')
        ending = '' if mask.lower().endswith('.png') else '.png'
        names[mask] = write_whole(out / 'labels' / f'{mask}{ending}', content.getvalue())
    return classes, names, broken


def _read(file: Path, legend: Legend | None) -> tuple[np.ndarray, bool]:
    """The values of a label image, or the numbers of its colours; and whether it has one channel of whole numbers."""
    with Image.open(file) as image:
        by_palette = image.mode == 'P' and legend is not None and _is_in_colours(image, legend)
        if image.mode in ('1', 'L', 'P', 'I;16', 'I') and not by_palette:
            return np.asarray(image).astype(np.int64), True
        if image.mode in ('F', 'I;16B', 'I;16L', 'I;16N'):
            values = np.asarray(image)
            if not np.array_equal(values, values.astype(np.int64)):
                raise UserError(f'{file} holds fractions: the pixels of a label image are the numbers of classes')
            return values.astype(np.int64), False
        colours = np.asarray(image.convert('RGB')).astype(np.int64)
    red, green, blue = np.moveaxis(colours, -1, 0)
    if (red == green).all() and (green == blue).all():
        return red, False
    return _COLOUR + 65536 * red + 256 * green + blue, False


def _is_in_colours(image: Image.Image, legend: Legend) -> bool:
    """Whether all colours of an image with a palette, but that of label 255, are in the legend."""
    palette = np.array(image.getpalette('RGB')).reshape(-1, 3)
    used = [value for value in np.unique(np.asarray(image)).tolist() if value != _IGNORED]
    return all(value < len(palette) and tuple(palette[value].tolist()) in legend.colours for value in used)


def _meaning(files: Files, legend: Legend | None, pixels: Counter[int], first: dict[int, str],
             notes: list[str]) -> tuple[list[str], dict[int, int]]:
    """The names of the classes, and value or number of a colour → label."""
    greys = [code for code in pixels if code < _COLOUR and code != _IGNORED]
    if legend and legend.colours and (len(greys) < len(pixels.keys() - {_IGNORED}) or all(
            _colour_of(grey) in legend.colours for grey in greys)):
        known = {**{_BORDER: _IGNORED, _colour_of(_IGNORED): _IGNORED}, **legend.colours}
        return legend.classes, _by_legend(files, legend, pixels, first, {
            code: known[colour] for code in pixels if (colour := _colour_of(code)) in known})
    if colours := [code for code in pixels if code >= _COLOUR]:
        raise UserError(f'{files.path(first[colours[0]])} is a colour image, and no file says which colours mean which '
                        'classes: add class_dict.csv with the columns name, r, g, b, or write the number of its class '
                        'into each pixel, with one channel or a palette')
    if legend and legend.values:
        known = {_IGNORED: _IGNORED, **legend.values}
        return legend.classes, _by_legend(files, legend, pixels, first, {
            code: known[code] for code in pixels if code in known})
    return _by_number(files, _listed(files) or (legend.classes if legend else []), pixels, first, notes)


def _by_legend(files: Files, legend: Legend, pixels: Counter[int], first: dict[int, str],
               label_of: dict[int, int]) -> dict[int, int]:
    """``label_of``, if all pixels have a label."""
    if unknown := [code for code in pixels if code not in label_of]:
        share = sum(pixels[code] for code in unknown) / pixels.total()
        what = 'colours' if legend.colours else 'values'
        raise UserError(f'the label images of {files.root} have {len(unknown)} {what} that no class of {legend.file} '
                        f'has, in {share:.2%} of their pixels: '
                        f"{some(f'{_written(code)} in {first[code]}' for code in unknown)}; add the {what} to "
                        f'{legend.file}, or write the label images without smoothing')
    return label_of


def _by_number(files: Files, classes: list[str], pixels: Counter[int], first: dict[int, str],
               notes: list[str]) -> tuple[list[str], dict[int, int]]:
    """The pixels as numbers of classes; {0, 255} as two classes."""
    where, values = _holds(files, pixels), sorted(pixels)
    labels = [value for value in values if value != _IGNORED]
    if outside := [value for value in labels if not 0 <= value < _IGNORED]:
        raise UserError(f'{where}: labels are 0 to 254, and 255 means "ignore this pixel"; {first[outside[0]]} has '
                        f'{some(outside)}; number the classes from 0')
    if values == [0, _IGNORED] and len(classes) in (0, 2):
        notes.append('the label images hold the values 0 and 255 alone: 255 is taken for class 1')
        return classes or ['0', '1'], {0: 0, _IGNORED: 1}
    if labels == [0] and _IGNORED in values:
        raise UserError(f'{where}, and 255 means "ignore this pixel": write 1 in its place for an object')
    if classes and labels and labels[-1] >= len(classes):
        raise UserError(f'{where}, and {len(classes)} classes have names, 0 to {len(classes) - 1} ({some(classes)}); '
                        'add the names, or mend the masks (255 means "ignore this pixel")')
    if not classes and len(labels) > 1:
        if min(second - one for one, second in zip(values, values[1:])) >= _STEP or labels[-1] > _NUMBERED:
            raise UserError(f'{where}: these look like steps of grey, or smoothed masks, and not like the numbers of '
                            'classes; write 0, 1, 2, …, or name the classes: classes.txt with a name a line for the '
                            'values from 0, or class_dict.csv with the columns name, r, g, b')
        if len(labels) <= labels[-1]:
            notes.append(f'{labels[-1] + 1 - len(labels)} of the labels 0 to {labels[-1]} are in no label image')
    return (classes or [str(label) for label in range(max(labels, default=0) + 1)]), {value: value for value in values}


def _listed(files: Files) -> list[str]:
    """The names of the classes in a list, one a line."""
    name = next((name for name in _LISTS if name in files), None)
    if name is None:
        return []
    try:
        lines = files.path(name).read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'{files.path(name)} is no text in UTF-8: save it again in that encoding') from error
    return [line.strip() for line in lines if line.strip() and line.strip() != '__ignore__']  # LabelMe's first line


def _holds(files: Files, pixels: Iterable[int]) -> str:
    return f'the label images of {files.root} hold the values {some(map(_written, sorted(pixels)), 20)}'


def _colour_of(code: int) -> tuple[int, ...]:
    return (code >> 16 & 255, code >> 8 & 255, code & 255) if code >= _COLOUR else (code, ) * 3


def _written(code: int) -> str:
    return str(_colour_of(code) if code >= _COLOUR else code)
