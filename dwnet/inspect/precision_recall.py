"""Precision-recall curves of a classifier, each class against all others."""
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from matplotlib.figure import Figure

from dwnet.errors import requires

from .figure import COLOURS, new_figure, verbatim


def metrics() -> ModuleType:
    """scikit-learn's metrics.

    Raises:
        UserError: If scikit-learn is missing.
    """
    with requires('scikit-learn', 'vis', 'the picture of precision and recall'):
        import sklearn.metrics
    return sklearn.metrics


def average_precisions(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Labels (N,) and scores (N, C) → the average precision of each class, (C,); NaN if a class does not occur."""
    return np.array([metrics().average_precision_score(labels == c, scores[:, c]) if (labels == c).any() else np.nan
                     for c in range(scores.shape[1])])


def plot(labels: np.ndarray, scores: np.ndarray, names: Sequence[str], most: int = 6) -> Figure:
    """Draws the curves of all classes; the ``most`` classes of lowest average precision are coloured.

    Args:
        labels: True classes, (N,).
        scores: (N, C).
        names: Names of the classes.
        most: Number of classes that are coloured and named.
    """
    average = average_precisions(labels, scores)
    order = [int(c) for c in np.argsort(average) if not np.isnan(average[c])]
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    for place, c in reversed(list(enumerate(order))):
        precision, recall, _ = metrics().precision_recall_curve(labels == c, scores[:, c])
        style = dict(color='#bbbbbb', linewidth=.7) if place >= most else dict(
            color=COLOURS[place], linewidth=1.5, label=f'{verbatim(names[c])}: {100 * average[c]:.1f}')
        axes.plot(recall, precision, **style)
    handles, texts = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], texts[::-1], title='average precision, %\n(lowest classes)', fontsize=8,
                title_fontsize=8, loc='lower left')
    mean = f'{100 * average[order].mean():.1f} %' if order else 'unknown'
    axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1.01), ylim=(0, 1.01),
             title=f'precision and recall; mean average precision {mean}')
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=.25)
    return figure
