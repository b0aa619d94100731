"""Data that do not fit the model, each other, or themselves: what the preflight looks for in built data sets."""
import copy
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset
from torch import nn

from dwnet.errors import one_line, some

from .orientation import Annotated, compare

# How many files of a data set are looked at, and how many label images are read; evenly spread
_SAMPLED_FILES, _SAMPLED_LABELS = 100, 20


class Finding(NamedTuple):
    """What is wrong, where, and what to do; ``stops`` is False if the user may intend it."""
    message: str
    stops: bool = True


# --- COCO's annotation files -------------------------------------------------------------------------


def examine_coco(path: str, content: dict, classes: Collection[str]) -> Iterator[Finding]:
    """Compares the categories of a file with the classes of the data set, by their names."""
    names = {category['id']: category['name'] for category in content['categories']}
    used = Counter(annotation['category_id'] for annotation in content['annotations'])
    missing = [name for name in classes if name not in names.values()]
    if len(missing) == len(classes):
        yield Finding(f"{path} has none of the data set's classes {some(missing)}, but {some(names.values(), 20)}: "
                      "name them in the data set's metainfo.classes")
    elif missing:
        yield Finding(f"{path} has no categories {some(missing)} ({len(missing)} of the data set's {len(classes)} "
                      'classes): these classes have no objects there', False)
    if dropped := {i: name for i, name in names.items() if name not in classes and used[i]}:
        yield Finding(f'{sum(used[i] for i in dropped)} annotations of {path} are left out, as the data set does not '
                      f'have their categories in metainfo.classes: {some(dropped.values(), 20)}', False)


# --- Classes -------------------------------------------------------------------------------------------


def find_heads(model: nn.Module) -> dict[str, int]:
    """Each head that tells classes apart → its number of classes; region proposal heads are left out."""
    heads = {}
    for name, module in model.named_modules():
        kind, number = type(module).__name__, getattr(module, 'num_classes', None)
        special = ('rpn' in f'{name}{kind}'.lower() or 'Semantic' in kind or 'Panoptic' in kind
                   or 'Grounding' in kind or getattr(module, 'boundary_threshold', None))  # scores words; finds edges
        if kind.endswith('Head') and isinstance(number, int) and not special:
            binary = number <= 2 and getattr(module, 'out_channels', None) == 1  # one output tells two classes apart
            heads[f'model.{name}'] = 2 if binary else number
    return heads


def check_classes(heads: dict[str, int], parts: dict[str, Any]) -> Iterator[Finding]:
    """Compares the number of classes of heads and data, and the classes of the data sets 'train' and 'val'."""
    known = {part: classes for part, dataset in parts.items() if (classes := classes_of(dataset))}
    for number in sorted(set(map(len, known.values()))):
        of = [part for part, classes in known.items() if len(classes) == number]
        things = len((getattr(parts[of[0]], 'metainfo', None) or {}).get('thing_classes') or ())  # in panoptic data
        for other in sorted({n for n in heads.values() if n not in (number, things)}):
            names = [head for head, n in heads.items() if n == other]
            # heads may have more classes than the data, but not in mmdet: its metric looks up a category for each label
            yield Finding(f"{some(names, 20)}: num_classes={other}, and the {' and '.join(of)} data have {number} "
                          f'({some(known[of[0]])}); set num_classes={number}',
                          other < number or any('bbox_head' in name for name in names))
    if len(known) == 2:
        (first, a), (second, b) = known.items()
        if a != b:
            only = [f'only {part} has {some(names)}' for part, names in (
                (first, [n for n in a if n not in b]), (second, [n for n in b if n not in a])) if names]
            yield Finding(f'{first} and {second} data have different classes, so a label means different things '
                          f"({'; '.join(only) or 'another order'}); give them the same folders or metainfo.classes")


def classes_of(dataset: Any) -> list[str]:
    """The names of a data set's classes; empty if the data set does not say."""
    return list((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())


# --- Files ---------------------------------------------------------------------------------------------


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers that join, repeat or mix them."""
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if inner is None:
        yield dataset
    else:
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from leaves(part)


def check_files(part: str, dataset: Any, heads: dict[str, int]) -> Iterator[Finding]:
    """Checks where the files of a data set lie, whether they can be read, and their labels."""
    if not isinstance(dataset, BaseDataset) or not len(dataset):
        return
    if dataset.ann_file:  # without a list, the data set has found the files itself
        yield from _check_annotations(part, dataset, heads)
    sample = np.linspace(0, len(dataset) - 1, _SAMPLED_FILES).astype(int)
    infos = [dataset.get_data_info(i) for i in np.unique(sample).tolist()]
    files = [Path(path) for info in infos for path in _paths(info)]
    there = [file for file in files if file.exists()]
    for state, bad in (('missing', [file for file in files if file not in there]),
                       ('empty', [file for file in there if file.stat().st_size == 0]),
                       ('not readable by you', [file for file in there if not os.access(file, os.R_OK)])):
        if bad:
            yield Finding(f'{len(bad)} of {len(files)} files that were looked at in the {part} data are {state}: '
                          f'{some(bad)}; put them there again, or take them out of the data set')
    yield from _check_orientation(part, infos)
    yield from _check_label_images(part, dataset, infos[::max(1, len(infos) // _SAMPLED_LABELS)], heads)


def _paths(info: dict) -> list[str]:
    return [value for key, value in info.items()
            if key.endswith('path') and isinstance(value, str) and '://' not in value]


def _check_orientation(part: str, infos: list[dict]) -> Iterator[Finding]:
    """Says what becomes of objects in photographs that EXIF turns; label images have the size of the turned image."""
    annotated = [compare(info['img_path'], info['width'], info['height'])[1] for info in infos if 'instances' in info]
    for which, meaning in (
            (Annotated.UNTURNED, 'width and height of their annotations are those before the turn: boxes and masks are '
             'turned, too'),
            (Annotated.UNCLEAR, 'width and height do not tell whether their annotations are of the pixels before the '
             'turn or behind it: behind it is assumed; look at some by browse_dataset')):
        if count := annotated.count(which):
            yield Finding(f'EXIF turns {count} of {len(annotated)} images that were looked at in the {part} data, and '
                          f'{meaning}', False)


def _check_annotations(part: str, dataset: BaseDataset, heads: dict[str, int]) -> Iterator[Finding]:
    """Checks all entries of an annotation file: paths have to stay in the data root, and labels have to fit the heads.

    Links are not resolved, so a data root may be a link.
    """
    prefixes = dataset.data_prefix.values() if isinstance(dataset.data_prefix, dict) else ()
    roots = [os.path.expanduser(root) for root in (dataset.data_root, *prefixes) if root]
    roots = roots or ['.', os.path.dirname(dataset.ann_file)]
    as_written, absolute = (tuple(path.rstrip('/') + '/' for path in paths)
                            for paths in (roots, map(os.path.abspath, roots)))
    fewest = min(heads.values(), default=np.inf)
    outside, wrong = [], []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        paths = _paths(info)
        for path in paths:
            if (not path.startswith(as_written) or '/..' in path) and not os.path.abspath(path).startswith(absolute):
                outside.append(path)
        wrong += [f'{label} of {paths[0] if paths else i}' for label in _labels(info) if not 0 <= label < fewest]
    if outside:
        yield Finding(f'{dataset.ann_file} names {len(outside)} files outside the data root {roots[0]}: '
                      f'{some(outside)}; do not trust it, or, if they are meant, name a folder that holds them in '
                      'data_root or data_prefix')
    if wrong:
        yield Finding(f'{len(wrong)} labels of the {part} data in {dataset.ann_file} are not in 0…{fewest - 1}: '
                      f'{some(wrong)}; mend them, or set num_classes in the heads')


def _labels(info: dict) -> list[int]:
    label = info.get('gt_label')
    if label is None:
        return [instance['bbox_label'] for instance in info.get('instances', ()) if 'bbox_label' in instance]
    return [label] if isinstance(label, int) else np.ravel(label).tolist()


def _check_label_images(part: str, dataset: BaseDataset, infos: list[dict],
                        heads: dict[str, int]) -> Iterator[Finding]:
    """Checks labels of pixels as the training reads them, with ``ignore_index`` and ``reduce_zero_label``."""
    loaders = [step for step in getattr(dataset.pipeline, 'transforms', ()) if type(step).__name__ == 'LoadAnnotations']
    if not loaders or not heads or not hasattr(dataset, 'ignore_index'):  # only data sets of label images do
        return
    fewest, wrong = min(heads.values()), []
    for info in infos:
        path = info['seg_map_path']
        try:
            labels = np.unique(loaders[0](copy.deepcopy(info))['gt_seg_map']).tolist()
        except Exception as error:  # a damaged file may raise anything
            if os.path.isfile(path) and os.path.getsize(path):  # missing and empty files are reported above
                yield Finding(f'{path} cannot be read ({one_line(error)}); put it there again')
            continue
        bad = [label for label in labels if not 0 <= label < fewest and label != dataset.ignore_index]
        wrong += [f'{some(bad)} in {path}'] * bool(bad)
    if wrong:
        yield Finding(f'labels of the {part} data are not in 0…{fewest - 1}: {some(wrong)}; mend them, or set '
                      'num_classes in the heads, or, where 0 is no class, reduce_zero_label=True in the data set')
