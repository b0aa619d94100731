"""What the values and colours of label images mean: by a legend, or as numbers of classes.

A colour has the number ``COLOUR`` + 65,536 · red + 256 · green + blue; smaller numbers are the values of pixels.
"""
from collections import Counter
from collections.abc import Iterable

from dwnet.errors import UserError, some

from .files import Files
from .legend import Legend

IGNORED = 255  # the label of pixels without a class
COLOUR = 2**24
_LISTS = ('classes.txt', 'labels.txt', 'class_names.txt', 'codes.txt')
_BORDER = (224, 224, 192)  # Pascal VOC's colour of pixels without a class
_STEP = 8  # a gap between all values that is as wide tells steps of grey from numbers of classes
_NUMBERED = 200  # the most classes that need no list of names; smoothed masks have values up to 255


def meaning_of(files: Files, legend: Legend | None, pixels: Counter[int], first: dict[int, str],
               notes: list[str]) -> tuple[list[str], dict[int, int]]:
    """The names of the classes, and value or number of a colour → label.

    Args:
        files: The files below the data root.
        legend: The legend, if there is one.
        pixels: Value or number of a colour → pixels in all label images.
        first: The same → the name of a label image.
        notes: What the user should know is added.

    Raises:
        UserError: If a value or colour means no class.
    """
    greys = [code for code in pixels if code < COLOUR and code != IGNORED]
    if legend and legend.colours and (len(greys) < len(pixels.keys() - {IGNORED}) or all(
            _colour_of(grey) in legend.colours for grey in greys)):
        known = {**{_BORDER: IGNORED, _colour_of(IGNORED): IGNORED}, **legend.colours}
        return legend.classes, _by_legend(files, legend, pixels, first, {
            code: known[colour] for code in pixels if (colour := _colour_of(code)) in known})
    if colours := [code for code in pixels if code >= COLOUR]:
        raise UserError(f'{files.path(first[colours[0]])} is a colour image, and no file says which colours mean which '
                        'classes: add class_dict.csv with the columns name, r, g, b, or write the number of its class '
                        'into each pixel, with one channel or a palette')
    if legend and legend.values:
        of_value = {IGNORED: IGNORED, **legend.values}
        return legend.classes, _by_legend(files, legend, pixels, first, {
            code: of_value[code] for code in pixels if code in of_value})
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
    where, values = what_is_in(files, pixels), sorted(pixels)
    labels = [value for value in values if value != IGNORED]
    if outside := [value for value in labels if not 0 <= value < IGNORED]:
        raise UserError(f'{where}: labels are 0 to 254, and 255 means "ignore this pixel"; {first[outside[0]]} has '
                        f'{some(outside)}; number the classes from 0')
    if values == [0, IGNORED] and len(classes) in (0, 2):
        notes.append('the label images hold the values 0 and 255 alone: 255 is taken for class 1')
        return classes or ['0', '1'], {0: 0, IGNORED: 1}
    if labels == [0] and IGNORED in values:
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


def what_is_in(files: Files, pixels: Iterable[int]) -> str:
    return f'the label images of {files.root} hold the values {some(map(_written, sorted(pixels)), 20)}'


def _colour_of(code: int) -> tuple[int, ...]:
    return (code >> 16 & 255, code >> 8 & 255, code & 255) if code >= COLOUR else (code, ) * 3


def _written(code: int) -> str:
    return str(_colour_of(code) if code >= COLOUR else code)
