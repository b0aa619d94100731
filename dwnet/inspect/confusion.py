"""Confusion matrices: rows are the true classes, columns the predicted classes."""
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from dwnet.errors import UserError

from .figure import COLOURS, MAP, new_figure, verbatim

NUMBERED = 20  # with more classes the cells have no numbers
NAMED = 60  # with more classes the rows have no names


def count(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix of labels.

    Args:
        truth: Labels, of any shape; labels that are no class, such as 255, do not count.
        predicted: As many predicted labels.
        classes: Number of classes, C.

    Returns:
        (C, C), int64: truth × prediction.

    Raises:
        UserError: If a predicted label is no class.
    """
    truth, predicted = truth.reshape(-1).astype(np.int64), predicted.reshape(-1).astype(np.int64)
    known = (truth >= 0) & (truth < classes)
    beyond = predicted[known & ((predicted < 0) | (predicted >= classes))]
    if len(beyond):
        raise UserError(f'class {beyond[0]} is predicted, but the data has {classes} classes, 0 to {classes - 1}; use '
                        'the config that the model was trained with')
    return np.bincount(truth[known] * classes + predicted[known], minlength=classes**2).reshape(classes, classes)


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, (C, C) → (C,); NaN where a class does not occur."""
    hits = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(matrix), np.nan), where=union > 0)


def plot(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Draws a confusion matrix in per cent of each row."""
    rows, columns = [verbatim(name) for name in rows], [verbatim(name) for name in columns]
    share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(12., max(5., .42 * len(rows) + 1.8))
    figure = new_figure(side + .8, side)
    axes = figure.subplots()
    image = axes.imshow(share, cmap=MAP, vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label='% of the true class', shrink=.8)
    if len(rows) <= NAMED:
        size = 9 if len(rows) <= NUMBERED else 6
        axes.set_yticks(range(len(rows)), rows, fontsize=size)
        axes.set_xticks(range(len(columns)), columns, fontsize=size,
                        rotation=90 if max(map(len, columns)) > 3 else 0)
    if len(rows) <= NUMBERED:
        for (i, j), value in np.ndenumerate(share):
            if matrix[i, j]:
                axes.text(j, i, f'{value:.0f}' if value >= .95 else f'{value:.1f}', ha='center', va='center',
                          fontsize=8, color='black' if value > 50 else 'white')
    axes.set(xlabel='predicted', ylabel='true', title=title)
    return figure


def plot_bars(values: dict[str, Sequence[float]], names: Sequence[str], title: str, label: str,
              most: int = 40) -> Figure:
    """Draws a bar for each class and kind of value, the lowest classes first.

    Args:
        values: Kind → the value of each class, per cent; the first kind sorts the classes.
        names: Names of the classes.
        title: Title of the figure.
        label: Label of the x axis.
        most: Only the ``most`` lowest classes are drawn.
    """
    order = np.argsort(np.nan_to_num(np.asarray(next(iter(values.values()))), nan=np.inf), kind='stable')[:most]
    figure = new_figure(7, max(2.6, .12 + .26 * len(order) * (1 + .35 * (len(values) - 1)) + 1))
    axes = figure.subplots()
    height = .8 / len(values)
    for i, (kind, of_class) in enumerate(values.items()):
        places = np.arange(len(order)) + (i - (len(values) - 1) / 2) * height
        bars = axes.barh(places, np.asarray(of_class)[order], height, color=COLOURS[i], label=kind)
        axes.bar_label(bars, fmt='%.1f', fontsize=7, padding=2)
    axes.set_yticks(range(len(order)), [verbatim(names[i]) for i in order], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xlabel(label)
    axes.set_title(title + (f', the lowest {most} of {len(names)}' if len(names) > most else ''))
    axes.spines[['top', 'right']].set_visible(False)
    if len(values) > 1:
        figure.legend(loc='outside lower center', ncols=len(values))
    return figure
