"""Data that do not fit the model or each other: what the preflight looks for in built data sets."""
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from torch import nn

from dwnet.errors import some


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


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers that join, repeat or mix them."""
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if inner is None:
        yield dataset
    else:
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from leaves(part)
