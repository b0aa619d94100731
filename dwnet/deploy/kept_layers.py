"""Finds the layers that stay float32, if a model in int8 scores too low.

Each layer alone is run in int8, on a few images without labels. The more the outputs change, the sooner the layer
stays float32: one layer, then two, four, … until the score holds.
"""
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dwnet.errors import UserError, some

from .quantise import Quantiser
from .runtimes import open_exported

IMAGES = 8  # on which the layers are compared


def hold_score(source: Quantiser, out: Path, score: Callable[[Path], dict[str, float]],
               max_drop: float) -> tuple[dict[str, float], dict[str, float], list[str]]:
    """Writes an int8 file that scores as the float32 file does.

    Args:
        source: The quantiser of the float32 file.
        out: The file to write.
        score: The scores of a file, in points; higher is better.
        max_drop: The most points that any score may fall.

    Returns:
        The scores of the float32 file, those of the int8 file, and the layers that stay float32.

    Raises:
        UserError: If the score falls more even with half of the layers in float32. ``out`` is left then.
    """
    before = score(source.path)
    source.write(out, source.layers)
    after = score(out)
    kept: list[str] = []
    order: list[str] = []
    while not largest_drop(before, after) <= max_drop:
        number = 2 * len(kept) or 1
        if number > len(source.layers) / 2:
            raise UserError(f'int8 scores {largest_drop(before, after):.2f} points less than float32, even with the '
                            f'{len(kept)} most sensitive of {len(source.layers)} layers in float32; no file was '
                            'written. More images may help (--calibration), and --max-drop accepts more')
        print(f'int8 scores {largest_drop(before, after):.2f} points less than float32; the next try keeps {number} '
              'layers in float32', flush=True)
        order = order or _most_sensitive_first(source)
        kept = order[:number]
        source.write(out, [layer for layer in source.layers if layer not in kept])
        after = score(out)
    if kept:
        print(f'layers in float32: {some(kept, 20)}')
    return before, after, kept


def largest_drop(before: dict[str, float], after: dict[str, float]) -> float:
    """Points by which the score falls that falls the most; NaN if a score is NaN."""
    return float(np.max([before[name] - after[name] for name in before]))


def _most_sensitive_first(source: Quantiser) -> list[str]:
    source = source.for_trials()
    images = source.images[:IMAGES]
    expected = [open_exported(source.path).run(image) for image in images]
    changes = {}
    with tempfile.TemporaryDirectory(prefix='dwnet-int8-') as folder:
        for i, layer in enumerate(source.layers, 1):
            print(f'how much int8 in {layer} changes the outputs ({i} of {len(source.layers)}) …', flush=True)
            trial = Path(folder, f'{i}{source.path.suffix}')
            source.write(trial, [layer])
            run = open_exported(trial).run
            changes[layer] = sum(_change(run(image), outputs) for image, outputs in zip(images, expected))
    return sorted(changes, key=lambda layer: -changes[layer])


def _change(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The squared difference of outputs, relative to the outputs; of found objects that of their scores alone."""
    if 'scores' in theirs:  # the number of objects may differ
        size = max(len(ours['scores']), len(theirs['scores']))
        ours, theirs = ({'scores': np.pad(outputs['scores'], (0, size - len(outputs['scores'])))}
                        for outputs in (ours, theirs))
    return sum(float(np.sum((ours[name] - output)**2) / max(np.sum(output**2), 1e-12))
               for name, output in theirs.items())
