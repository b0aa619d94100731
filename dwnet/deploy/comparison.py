"""Compares what a file computes with what the original model computes in PyTorch."""
from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.ops import box_iou

from dwnet.errors import UserError

from .trial_images import as_input

_PIXELS = 4096  # so many of a mask tell objects apart


def compare(run: Callable[[np.ndarray], dict[str, np.ndarray]], graph: nn.Module, reference: nn.Module,
            batches: Iterable[list[Tensor]], tolerance: float, rounded: bool = False) -> bool:
    """Compares a file with the original model and its preprocessor.

    Args:
        run: The file's outputs for an input.
        graph: What was exported; its ``reference`` gives the outputs of the original model.
        reference: The original model.
        batches: Images as a toolbox takes them, (C, H, W); those of a batch are of one size.
        tolerance: The largest difference, relative to the largest value of an output, or to 1 if that is larger.
        rounded: The file's weights are rounded, so that uncertain objects come and go and overlapping ones replace each
            other: of the objects of a detector, nine in ten of the better half have to be there.

    Returns:
        Whether there was something to compare in each output; a detector may find nothing.

    Raises:
        UserError: If the outputs differ.
    """
    seen = dict.fromkeys(graph.axes, False)
    for pictures in batches:
        images = as_input(pictures)
        with torch.no_grad():
            expected = dict(zip(graph.axes, graph.reference(reference, pictures), strict=True))
        outputs = {name: torch.from_numpy(array) for name, array in run(images.numpy()).items()}
        if 'boxes' in expected and rounded:
            if not (_has_objects_of(outputs, expected) and _has_objects_of(expected, outputs)):
                raise UserError(f'the file and PyTorch find other objects in images of {tuple(images.shape)}; no file '
                                'was written')
            seen.update({name: len(outputs['boxes']) > 0 or seen[name] for name in seen})
            continue
        if 'boxes' in expected and len(outputs['boxes']) == len(expected['boxes']):
            objects = [name for name in expected if name != 'panoptic']
            order = _partners(outputs, expected)
            outputs |= {name: outputs[name][order] for name in objects}
            same = _all_but_the_cut({name: outputs[name] for name in objects}, expected, tolerance)
            outputs |= {name: outputs[name][same] for name in objects}
            expected |= {name: expected[name][same] for name in objects}
        for name, theirs in expected.items():
            ours = outputs[name]
            fits = ours.shape == theirs.shape
            if fits and name == 'panoptic':  # a pixel between two segments may go to either: the share of such pixels
                error = float((ours != theirs).float().mean())
            else:
                error = float((ours - theirs).abs().max() / _largest(theirs)) if fits and ours.numel() else 0
            if not fits or not error <= tolerance:
                how = f'by {error:.1e} of the largest value' if fits else f'{tuple(ours.shape)}, {tuple(theirs.shape)}'
                raise UserError(f'the file and PyTorch disagree on {name} for images of {tuple(images.shape)}: '
                                f'{how}; no file was written')
            seen[name] |= ours.numel() > 0
    return all(seen.values())


def _largest(values: Tensor) -> Tensor | int:
    """What differences are relative to."""
    return values.abs().max().clamp(min=1) if values.numel() else 1


def _all_but_the_cut(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> Tensor:
    """Which objects to compare, in the order of ``theirs``, best first.

    A detector that keeps its n best objects may keep others of the same score at the cut, since rounding decides. So
    one object in fifty, at least one, may be another if it is in the last tenth and no score differs.
    """
    number = len(theirs['boxes'])
    others = torch.zeros(number, dtype=torch.bool)
    for name, output in ours.items():
        if number and output.shape == theirs[name].shape:
            errors = (output - theirs[name]).abs() / _largest(theirs[name])
            differ = (errors > tolerance).reshape(number, -1).any(1)
            if name == 'scores' and differ.any():
                return torch.ones_like(others)
            others |= differ
    in_front = torch.arange(number) < number * .9
    excused = others.sum() <= max(1, number // 50) and not (others & in_front).any()
    return ~others if excused else torch.ones_like(others)


def _has_objects_of(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Whether nine in ten of the expected objects with at least half of the best score are found."""
    if not len(expected['boxes']):
        return True
    certain = expected['scores'] >= expected['scores'][0] / 2
    overlap = box_iou(expected['boxes'][certain], found['boxes']) > .5
    same_class = expected['labels'][certain, None] == found['labels']
    same_score = (expected['scores'][certain, None] - found['scores']).abs() < .1
    return bool((overlap & same_class & same_score).any(1).float().mean() >= .9)


def _partners(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
    """The order in which our objects match theirs: objects of nearly the same score may have changed places.

    Objects without a pixel all have the score 0 and the same box, and only their masks tell them apart.
    """
    size = theirs['boxes'].abs().max().clamp(min=1) if len(theirs['boxes']) else 1
    costs = (torch.cdist(theirs['boxes'] / size, ours['boxes'] / size, p=1)
             + (theirs['scores'][:, None] - ours['scores']).abs() + (theirs['labels'][:, None] != ours['labels']))
    for name in {'masks', 'image_masks'} & theirs.keys():
        if ours[name].shape == theirs[name].shape and ours[name].numel():
            step = ours[name][0].numel() // _PIXELS | 1  # odd, or the pixels would lie in a few columns
            a, b = (outputs[name].flatten(1)[:, ::step] for outputs in (theirs, ours))
            costs += torch.cdist(a, b, p=1) / a.shape[1]
    place = torch.arange(len(costs), dtype=torch.float64)
    costs = costs.nan_to_num(nan=1e9) + 1e-9 * (place[:, None] - place).abs()  # equal objects keep their places
    return torch.from_numpy(linear_sum_assignment(costs.numpy())[1])
