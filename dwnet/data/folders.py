"""Images in folders of their classes: ``ROOT/{train,val}/CLASS/*.jpg``, or ``ROOT/CLASS`` without a split.

Parts may also lie inside of the classes, ``ROOT/CLASS/{train,val}``, and all of it in a further folder, such as
``ROOT/images``.
"""
import posixpath
from collections import defaultdict
from pathlib import Path

from dwnet.errors import UserError, some

from .files import Files, part_of
from .table import Entry, Table

NAME = 'folders'
NEEDS = 'a folder of images for each class'


def read(files: Files, out: Path) -> Table:
    """The images of ``files``; any folder with images in folders is of this form."""
    notes: list[str] = []
    where = _parts(files, notes)
    of_class = {part: {name: posixpath.join(folder, name) for name in files.folders(folder)}
                for part, folder in where.items()}
    if 'all' in where and (by_part := _parts_in_classes(files, of_class['all'])):
        where, of_class = dict.fromkeys(by_part, where['all']), by_part
    first = 'all' if 'all' in where else 'train'
    names = sorted(of_class[first])
    if len(names) < 2:
        there = f'one class, {names[0]}' if names else 'no folders of classes'
        raise UserError(f'{files.path(where[first])} has {there}: put the images of each class into a folder of its '
                        'name, for two classes at least')
    number = {name: label for label, name in enumerate(names)}
    parts: dict[str, list[Entry]] = {}
    for part, classes in of_class.items():
        if unknown := sorted(set(classes) - set(names)):
            raise UserError(f'{files.path(where[part])} has classes that {files.path(where[first])} lacks: '
                            f'{some(unknown)}; name the folders alike')
        parts[part] = [Entry(image, number[name]) for name, folder in classes.items()
                       for image in _images(files, folder, 2 if part == 'all' else 1)]
    used = {entry.image for entries in parts.values() for entry in entries}
    if stray := [name for name in files.images if name not in used]:
        notes.append(f'{len(stray)} images lie outside of the folders of classes and are left out: {some(stray)}')
    return Table(f'{NAME} of classes', names, parts, notes)


def _parts(files: Files, notes: list[str]) -> dict[str, str]:
    """Part → its folder; or ``'all'`` → the folder of all classes."""
    root = _innermost(files, '')
    found = defaultdict(list)
    for name in files.folders(root):
        if part := part_of(name):
            found[part].append(posixpath.join(root, name))
    if 'train' not in found:
        return dict(all=root)
    if several := [folders for folders in found.values() if len(folders) > 1]:
        raise UserError(f'{files.root} has two folders for one part, {some(several[0])}: leave one of them')
    where = {part: _innermost(files, folder) for part, (folder, ) in found.items()}
    for part in [part for part, folder in where.items() if part != 'train' and not files.folders(folder)]:
        if part == 'val':
            names = some(files.folders(where['train']))
            raise UserError(f"{files.path(where[part])} has no folders of classes, as {files.path(where['train'])} has "
                            f'them: {names}')
        notes.append(f'{files.path(where.pop(part))} has no folders of classes and is left out')  # as Kaggle's test set
    return where


def _innermost(files: Files, folder: str) -> str:
    """The folder, or the parts or classes that it alone wraps, as ``images`` does."""
    inner = folder
    while True:
        start = len(f'{inner}/') if inner else 0
        places = {name[start:].rpartition('/')[0].partition('/')[0] for name in files.images_below(inner)}
        if '' in places or not places:  # a class
            return folder
        if len(places) > 1 or part_of(name := places.pop()):
            return inner
        inner = posixpath.join(inner, name)


def _parts_in_classes(files: Files, of_class: dict[str, str]) -> dict[str, dict[str, str]] | None:
    """Part → class → folder, if all classes have the same parts as their only folders."""
    parts: dict[str, dict[str, str]] = defaultdict(dict)
    for name, folder in of_class.items():
        for inner in files.folders(folder):
            parts[part_of(inner) or ''][name] = posixpath.join(folder, inner)
    return None if '' in parts or 'train' not in parts or len(parts['train']) < len(of_class) else parts


def _images(files: Files, folder: str, least: int) -> list[str]:
    images = files.images_below(folder)
    if not images:
        raise UserError(f'no images in {files.path(folder)}' + files.others_below(folder))
    if len(images) < least:
        raise UserError(f'{files.path(folder)} has one image: each class needs one to train with and one to validate '
                        'with')
    return images
