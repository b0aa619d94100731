"""Fonts for names of classes in any script; matplotlib's own has no Chinese, Japanese, Korean or Indian letters."""
import functools
from collections.abc import Sequence

from matplotlib import font_manager, rcParams, rcParamsDefault
from matplotlib.ft2font import FT2Font

from dwnet.toolboxes.base import Toolbox

_FAMILIES = ('sans-serif', 'monospace')  # our figures and the toolboxes' pictures name these
_SCORE = frozenset('0123456789.,:%() ')  # stands beside a name, in the same font


def drawable(names: Sequence[str], only_ascii: bool = False) -> list[str]:
    """The names as pictures can show them.

    If matplotlib's font lacks a letter, matplotlib gets the font of the machine that has the most of them. A name with
    letters that this font lacks, which would be drawn as empty boxes, becomes the number of its class.

    Args:
        names: Names of all classes.
        only_ascii: The names are not drawn by matplotlib, but by OpenCV.

    Returns:
        As many names.
    """
    names = list(map(str, names))  # a config may have numbers
    needed = frozenset(''.join(names))
    known = frozenset(map(chr, range(128))) if only_ascii else _choose_font(needed)
    missing = [name for name in names if not known.issuperset(name)]
    if missing:
        _say(missing[0], only_ascii)
    return [name if known.issuperset(name) else str(i) for i, name in enumerate(names)]


def with_drawable_names(meta: dict, toolbox: Toolbox) -> dict:
    """A copy of a data set's ``classes`` and other facts, whose names a toolbox's visualizer can draw."""
    names = meta.get('classes')
    return {**meta, 'classes': drawable(names, toolbox.only_ascii)} if names else meta


def _choose_font(needed: frozenset[str]) -> frozenset[str]:
    """Changes matplotlib's fonts if one lacks a needed character, and returns the characters that they have."""
    if needed <= _present():
        return _present()
    usual = font_manager.findfont(font_manager.FontProperties(family=rcParamsDefault['font.sans-serif']))
    path = max([usual, *sorted(font_manager.findSystemFonts())], key=lambda font: _worth(font, needed))
    if path != usual:
        font_manager.fontManager.addfont(path)  # matplotlib's list of fonts may be older than the font
    for family in _FAMILIES:
        rcParams[f'font.{family}'] = [FT2Font(path).family_name, *rcParamsDefault[f'font.{family}']]
    return _present()


def _present() -> frozenset[str]:
    """The characters that all of matplotlib's present fonts have."""
    paths = [font_manager.findfont(font_manager.FontProperties(family=[family])) for family in _FAMILIES]
    return frozenset.intersection(*map(_characters, paths))


def _worth(path: str, needed: frozenset[str]) -> tuple[int, bool]:
    """How many of the needed characters a font has; of equals an upright sans-serif is worth more."""
    known = _characters(path)
    if not known >= _SCORE:
        return 0, False
    font = FT2Font(path)
    return len(needed & known), 'Sans' in font.family_name and font.style_name in ('Regular', 'Book')


@functools.cache
def _characters(path: str) -> frozenset[str]:
    """The characters of a font; none of a font that matplotlib cannot draw, such as coloured emoji."""
    try:
        font = FT2Font(path)
    except (RuntimeError, OSError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


@functools.cache
def _say(name: str, only_ascii: bool) -> None:
    reason = ('the pictures of this toolbox have ASCII letters alone' if only_ascii else
              'no font of this machine has its letters; for Chinese, Japanese and Korean: apt-get install '
              'fonts-noto-cjk')
    print(f'pictures show numbers of classes for names such as {name!r}: {reason}')
