"""Figures without a window, in colours that the colour-blind tell apart."""
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008; without yellow, which is faint on white
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MAP = 'cividis'  # for amounts
MOST = 4  # times as high as wide is a place on a sheet; a narrower strip leaves room beside it


def new_figure(width: float, height: float) -> Figure:
    """A figure of that many inches; its parts make room for each other."""
    return Figure(figsize=(width, height), dpi=100, layout='constrained')


def verbatim(text: str) -> str:
    """A name as it is: matplotlib takes what stands between two dollars for mathematics, and may fail at it."""
    return text.replace('$', r'\$')


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a picture, PNG or what the name says, and its folder."""
    path = Path(path)
    path = path if path.suffix else path.with_name(f'{path.name}.png')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def contact_sheet(pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int | None = None,
                  title: str = '', side: float = 2.4) -> Figure:
    """Pictures in rows, each with a line above it.

    Args:
        pictures: Arrays (H, W, 3), uint8, RGB, of any sizes.
        captions: As many lines.
        columns: How many stand in a row; by default as many as make about a square.
        title: A line above all.
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
