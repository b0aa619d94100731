"""The files that a data set names: where they lie, whether they can be read, and the labels in them."""
import copy
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset

from dwnet.errors import one_line, some

from .checks import Finding
from .examiner import EMPTY, MISSING, UNREADABLE, Examiner, Reader
from .files import most_left_out
from .loading import check_whole
from .orientation import Annotated, compare

# How many images and label images of a data set are decoded, and of how many the labels are read; evenly spread
_DECODED, _SAMPLED_LABELS = 32, 20
_TURNED = 100  # images of a detection data set whose orientation is looked at


def check_files(part: str, dataset: Any, heads: dict[str, int], examiner: Examiner) -> Iterator[Finding]:
    """Checks where the files of a data set lie, whether they can be read, and their labels.

    All files are looked at, and all entries of an annotation file.
    """
    if not isinstance(dataset, BaseDataset) or not len(dataset):
        return
    files: dict[str, dict[str, None]] = {}  # key of the data infos → paths, each once
    outside, wrong = [], []
    stays, fewest = _inside(dataset), min(heads.values(), default=np.inf)
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        paths = _paths(info)
        if dataset.ann_file:  # without a list, the data set has found the files itself
            outside += [path for path in paths.values() if not stays(path)]
            wrong += [f'{label} of {next(iter(paths.values()), i)}' for label in _labels(info)
                      if not 0 <= label < fewest]
        for key, path in paths.items():
            files.setdefault(key, {}).setdefault(path)
    if outside:
        yield Finding(f'{dataset.ann_file} names {len(outside)} files outside the data root {_roots(dataset)[0]}: '
                      f'{some(outside)}; do not trust it, or, if they are meant, name a folder that holds them in '
                      'data_root or data_prefix')
    if wrong:
        yield Finding(f'{len(wrong)} labels of the {part} data in {dataset.ann_file} are not in 0…{fewest - 1}: '
                      f'{some(wrong)}; mend them, or set num_classes in the heads')
    faults: dict[str, str] = {}
    away = set(outside)
    for key, named in files.items():
        names = [name for name in named if name not in away]
        faults |= examiner.faults(
            names, f'the {part} data', _reader(dataset, key), _spread(names, _DECODED))
    yield from _faulty_files(part, sum(map(len, files.values())), faults, most_left_out(len(dataset)))
    if not str(getattr(_loader(dataset), 'color_type', '')).endswith('ignore_orientation'):  # else nothing is turned
        yield from _check_orientation(part, [dataset.get_data_info(i) for i in _spread(range(len(dataset)), _TURNED)])
    yield from _check_label_images(part, dataset, heads, faults)


def _spread(items: Sequence, most: int) -> Sequence:
    """At most ``most`` of the items, evenly spread."""
    return items[::math.ceil(len(items) / most) or 1]


def _paths(info: dict) -> dict[str, str]:
    return {key: value for key, value in info.items()
            if key.endswith(('path', 'filename')) and isinstance(value, str) and '://' not in value}


def _roots(dataset: BaseDataset) -> list[str]:
    """The folders in which the files of a data set may lie."""
    prefixes = dataset.data_prefix.values() if isinstance(dataset.data_prefix, dict) else ()
    return [os.path.expanduser(root) for root in (dataset.data_root, *prefixes) if root] or [
        '.', os.path.dirname(dataset.ann_file)]


def _inside(dataset: BaseDataset) -> Callable[[str], bool]:
    """Tells whether a path stays in the data root. Links are not resolved, so a data root may be a link."""
    roots = _roots(dataset)
    as_written, absolute = (tuple(path.rstrip('/') + '/' for path in paths)
                            for paths in (roots, map(os.path.abspath, roots)))
    return lambda path: (path.startswith(as_written) and '/..' not in path
                         or os.path.abspath(path).startswith(absolute))


def _labels(info: dict) -> list[int]:
    label = info.get('gt_label', info.get('label'))  # 'label' is that of a clip
    if label is None:
        return [instance['bbox_label'] for instance in info.get('instances', ()) if 'bbox_label' in instance]
    return [label] if isinstance(label, int) else np.ravel(label).tolist()


def _reader(dataset: BaseDataset, key: str) -> Reader | None:
    """What reads the files that data infos name by ``key``; None for files of unknown form."""
    loader = _loader(dataset)
    if key == 'img_path' and loader is not None:
        return lambda file: loader.transform(dict(img_path=file))
    return (lambda file: check_whole(Path(file).read_bytes())) if key == 'seg_map_path' else None


def _loader(dataset: BaseDataset) -> LoadImageFromFile | None:
    steps = getattr(dataset.pipeline, 'transforms', ())
    return next((step for step in steps if isinstance(step, LoadImageFromFile)), None)


def _faulty_files(part: str, total: int, faults: dict[str, str], most: int) -> Iterator[Finding]:
    """Says what is wrong with files; a training can do without a few damaged ones of its own."""
    remedy = 'put them there again, or take them out of the data set'
    for state in (MISSING, EMPTY, UNREADABLE):
        if bad := [file for file, fault in faults.items() if fault == state]:
            yield Finding(f'{len(bad)} of {total} files of the {part} data are {state}: {some(bad)}; {remedy}')
    damaged = [f'{file} ({fault})' for file, fault in faults.items() if fault not in (MISSING, EMPTY, UNREADABLE)]
    stops = part != 'train' or len(damaged) > most
    if damaged:
        yield Finding(f'{len(damaged)} of {total} files of the {part} data are damaged: {some(damaged)}; '
                      f"{remedy if stops else 'the training leaves them out'}", stops)


def _check_orientation(part: str, infos: list[dict]) -> Iterator[Finding]:
    """Says what becomes of objects in photographs that EXIF turns; label images have the size of the turned image."""
    annotated = [compare(info['img_path'], info['width'], info['height'])[1] for info in infos
                 if 'instances' in info and 'width' in info]  # DOTA's annotations tell no size
    for which, meaning in (
            (Annotated.UNTURNED, 'width and height of their annotations are those before the turn: boxes and masks are '
             'turned, too'),
            (Annotated.UNCLEAR, 'width and height do not tell whether their annotations are of the pixels before the '
             'turn or behind it: behind it is assumed; look at some by browse_dataset')):
        if count := annotated.count(which):
            yield Finding(f'EXIF turns {count} of {len(annotated)} images that were looked at in the {part} data, and '
                          f'{meaning}', False)


def _check_label_images(part: str, dataset: BaseDataset, heads: dict[str, int],
                        faults: dict[str, str]) -> Iterator[Finding]:
    """Checks labels of pixels as the training reads them, with ``ignore_index`` and ``reduce_zero_label``.

    Files with ``faults`` are reported already.
    """
    loaders = [step for step in getattr(dataset.pipeline, 'transforms', ()) if type(step).__name__ == 'LoadAnnotations']
    if not loaders or not heads or not hasattr(dataset, 'ignore_index'):  # only data sets of label images do
        return
    fewest, wrong = min(heads.values()), []
    for i in _spread(range(len(dataset)), _SAMPLED_LABELS):
        info = dataset.get_data_info(i)
        path = info['seg_map_path']
        if path in faults:
            continue
        try:
            labels = np.unique(loaders[0](copy.deepcopy(info))['gt_seg_map']).tolist()
        except Exception as error:  # a damaged file may raise anything
            yield Finding(f'{path} cannot be read ({one_line(error)}); put it there again')
            continue
        bad = [label for label in labels if not 0 <= label < fewest and label != dataset.ignore_index]
        wrong += [f'{some(bad)} in {path}'] * bool(bad)
    if wrong:
        yield Finding(f'labels of the {part} data are not in 0…{fewest - 1}: {some(wrong)}; mend them, or set '
                      'num_classes in the heads, or, where 0 is no class, reduce_zero_label=True in the data set')
