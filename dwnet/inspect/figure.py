"""Figures without a window, in colours that colour-blind people can tell apart."""
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008; without yellow, which is too light on white
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MAP = 'cividis'  # for amounts
MOST = 4  # largest ratio of height to width of a place on a contact sheet


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, with a layout that avoids overlaps."""
    return Figure(figsize=(width, height), dpi=100, layout='constrained')


def verbatim(text: str) -> str:
    """Escapes dollars: matplotlib would typeset the text between two dollars as mathematics, and may fail."""
    return text.replace('$', r'\$')


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a picture, as PNG unless the path has a suffix; makes the folder."""
    path = Path(path)
    path = path if path.suffix else path.with_name(f'{path.name}.png')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def contact_sheet(pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int | None = None,
                  title: str = '', side: float = 2.4) -> Figure:
    """Pictures in rows, with captions.

    Args:
        pictures: Arrays (H, W, 3), uint8, RGB, of any sizes.
        captions: A line above each picture.
        columns: Pictures in a row; by default the rows form about a square.
        title: A line above all pictures.
        side: Width of a picture, inches.
    """
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    shape = min(MOST, max(picture.shape[0] / picture.shape[1] for picture in pictures))
    figure = new_figure(columns * side, rows * (side * shape + .3) + .4 * bool(title))
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.axis('off')
    for axes, picture, caption in zip(places, pictures, captions):
        axes.imshow(picture)
        axes.set_title(verbatim(caption), fontsize=9)
    if title:
        figure.suptitle(verbatim(title))
    return figure
