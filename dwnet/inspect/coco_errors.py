"""A detector's errors by kind: COCO's precision-recall curves, and the gap between curves and 1.

The kinds are those of COCO's analysis (cocodataset.org, "Detection evaluation", after Hoiem et al., "Diagnosing error
in object detectors", ECCV 2012). Each curve forgives more errors than the curve before:

=====  ============================================================================
C75    boxes or masks must overlap with the ground truth by an IoU of 0.75
C50    … of 0.5
Loc    … of 0.1: the gain is due to poor localisation
Sim    also forgives confusion with a similar class (of the same supercategory)
Oth    also forgives confusion with any class
BG     also forgives detections on the background
FN     also forgives missed objects
=====  ============================================================================
"""
import contextlib
import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .figure import MAP, new_figure

PARTS = ('C75', 'C50', 'Loc', 'Sim', 'Oth', 'BG', 'FN')
_FILLS = ('#0072B2', '#56B4E9', '#009E73', '#F0E442', '#E69F00', '#CC79A7', '#DDDDDD')
SIZES = ('all', 'small', 'medium', 'large')
RECALL = np.linspace(0, 1, 101)


def evaluate(truth: COCO, found: COCO, kind: str, **parameters) -> COCOeval:
    """Runs and accumulates COCO's evaluation; ``parameters`` are set in the evaluation's ``params``."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, found, kind)
        for name, value in parameters.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def breakdown(truth: COCO, found: COCO, kind: str) -> np.ndarray:
    """Precision at 101 recalls for each part, class and size.

    Args:
        truth: Annotations.
        found: Detections, from ``truth.loadRes``.
        kind: ``'bbox'`` or ``'segm'``.

    Returns:
        (7 parts, 101, classes, 4 sizes); NaN if a class has no object of that size.
    """
    precision = evaluate(truth, found, kind, iouThrs=[.75, .5, .1], maxDets=[100]).eval['precision'][..., 0]
    categories = sorted(truth.getCatIds())  # the order of the evaluation
    parts = np.full((len(PARTS), *precision.shape[1:]), np.nan)
    parts[:3] = np.where(precision < 0, np.nan, precision)
    for k, category in enumerate(categories):
        family = truth.cats[category].get('supercategory')
        similar = {other['id'] for other in truth.loadCats(categories)
                   if family and other.get('supercategory') == family}
        for part, forgiven in ((3, similar), (4, set(categories))):
            parts[part, :, k] = _forgiving(truth, found, kind, category, forgiven)
    absent = np.isnan(parts[0])
    parts[5], parts[6] = parts[4] > 0, 1
    parts[:, absent] = np.nan
    return np.fmax.accumulate(parts)  # ties of crowds can lower a curve; forgiving must not


def _forgiving(truth: COCO, found: COCO, kind: str, category: int, forgiven: set[int]) -> np.ndarray:
    """Precision (101, 4 sizes) of a class at an IoU of 0.1, ignoring detections on objects of ``forgiven`` classes."""
    objects = [{**a, 'category_id': category, 'ignore': 1, 'iscrowd': 1} if a['category_id'] != category else a
               for a in truth.dataset['annotations'] if a['category_id'] == category or a['category_id'] in forgiven]
    own = [a for a in found.dataset['annotations'] if a['category_id'] == category]
    evaluation = evaluate(_with(truth, objects), _with(truth, own), kind, iouThrs=[.1], maxDets=[100],
                          catIds=[category], imgIds=truth.getImgIds())
    return evaluation.eval['precision'][0, :, 0, :, 0]


def _with(template: COCO, annotations: list[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {**template.dataset, 'annotations': annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def confusion(truth: COCO, found: COCO, kind: str, threshold: float = .3, least_iou: float = .5) -> np.ndarray:
    """The confusion matrix of detections; matching of detections and objects ignores classes.

    Args:
        truth: Annotations; crowds do not count.
        found: Detections.
        kind: ``'bbox'`` or ``'segm'``.
        threshold: Detections of a lower score do not count.
        least_iou: Least IoU of a match.

    Returns:
        (C + 1, C + 1), int64: truth × prediction; the last row is the background, the last column missed objects.
    """
    categories = sorted(truth.getCatIds())  # the order of the evaluation
    index = {category: i for i, category in enumerate(categories)}
    kept = _with(truth, [a for a in found.dataset['annotations'] if a['score'] >= threshold])
    evaluation = evaluate(truth, kept, kind, iouThrs=[least_iou], maxDets=[100], useCats=0)
    matrix = np.zeros((len(categories) + 1, ) * 2, np.int64)
    for image in evaluation.evalImgs[:len(truth.getImgIds())]:  # the first entries are of all sizes
        if image is None:
            continue
        for detection, match, ignored in zip(image['dtIds'], image['dtMatches'][0], image['dtIgnore'][0]):
            if not ignored:
                row = index[truth.anns[int(match)]['category_id']] if match else len(categories)
                matrix[row, index[kept.anns[detection]['category_id']]] += 1
        for annotation, match, ignored in zip(image['gtIds'], image['gtMatches'][0], image['gtIgnore']):
            if not ignored and not match:
                matrix[index[truth.anns[annotation]['category_id']], -1] += 1
    return matrix


def plot_breakdown(parts: np.ndarray, title: str) -> Figure:
    """Draws the areas between the parts' precision-recall curves, in a panel for each size of objects."""
    figure = new_figure(13, 3.7)
    for axes, size, values in zip(figure.subplots(1, 4, sharey=True), SIZES, np.moveaxis(parts, -1, 0)):
        axes.set(title={'all': 'all sizes'}.get(size, f'{size} objects'), xlabel='recall', xlim=(0, 1), ylim=(0, 1))
        if np.isnan(values).all():
            axes.text(.5, .5, 'none in these data', ha='center', va='center', color='#555555')
            continue
        curves = np.nanmean(values, axis=-1)
        below = np.zeros(len(RECALL))
        for name, fill, curve in zip(PARTS, _FILLS, curves):
            axes.fill_between(RECALL, below, curve, color=fill, linewidth=0,
                              label=f'{name} {100 * curve.mean():.1f}')
            axes.plot(RECALL, curve, color='black', linewidth=.5)
            below = curve
        axes.legend(loc='lower left', fontsize=8, title='area, %', title_fontsize=8, framealpha=.9)
    figure.axes[0].set_ylabel('precision')
    figure.suptitle(title)
    return figure


def plot_curves(evaluation: COCOeval, title: str) -> Figure:
    """Draws precision over recall, mean of all classes, at COCO's IoUs."""
    precision = evaluation.eval['precision'][:, :, :, 0, -1]  # IoU, recall, class
    precision = np.where(precision < 0, np.nan, precision)
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    levels: Sequence[float] = evaluation.params.iouThrs
    for i, level in enumerate(levels):
        curve = np.nanmean(precision[i], axis=-1)
        axes.plot(RECALL, curve, color=colormaps[MAP](i / len(levels)), linewidth=1.5,
                  label=f'{level:.2f}: {100 * curve.mean():.1f}')
    axes.legend(title='IoU: AP, %', fontsize=8, title_fontsize=8, loc='center left', bbox_to_anchor=(1.01, .5))
    axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.01), title=title)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=.25)
    return figure
