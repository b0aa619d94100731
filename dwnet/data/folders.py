"""Images in folders of their classes: ``ROOT/{train,val}/CLASS/*.jpg``, or ``ROOT/CLASS`` without a split."""
from pathlib import Path

from dwnet.errors import UserError, some

from .files import Files, part_of
from .table import Entry, Table

NAME = 'folders'
NEEDS = 'a folder of images for each class'


def read(files: Files, out: Path) -> Table:
    """The images of ``files``; any folder with images in folders is of this form."""
    notes: list[str] = []
    top = {part: name for name in files.folders() if (part := part_of(name))}
    if 'train' not in top:
        top = {}
    for part in [part for part, name in top.items() if part != 'train' and not files.folders(name)]:
        if part == 'val':
            names = some(files.folders(top['train']))
            raise UserError(f"{files.path(top[part])} has no folders of classes, as {files.path(top['train'])} has "
                            f'them: {names}')
        notes.append(f'{files.path(top.pop(part))} has no folders of classes and is left out')  # as Kaggle's test set
    where = top or dict(all='')
    of_class = {part: {name: f'{folder}/{name}'.lstrip('/') for name in files.folders(folder)}
                for part, folder in where.items()}
    names = sorted(of_class.get('train', of_class.get('all', {})))
    if len(names) < 2:
        there = f'one class, {names[0]}' if names else 'no folders of classes'
        raise UserError(f"{files.path(where.get('train', ''))} has {there}: put the images of each class into a folder "
                        'of its name, for two classes at least')
    parts: dict[str, list[Entry]] = {}
    for part, classes in of_class.items():
        if unknown := sorted(set(classes) - set(names)):
            raise UserError(f'{files.path(where[part])} has classes that {files.path(where["train"])} lacks: '
                            f'{some(unknown)}; name the folders alike')
        parts[part] = [Entry(image, names.index(name)) for name, folder in classes.items()
                       for image in _images(files, folder, 2 if part == 'all' else 1)]
    if top and (stray := [name for name in files.images if not name.startswith(tuple(
            f'{folder}/' for classes in of_class.values() for folder in classes.values()))]):
        notes.append(f'{len(stray)} images lie outside of the folders of classes and are left out: {some(stray)}')
    return Table(f"{NAME} of classes", names, parts, notes)


def _images(files: Files, folder: str, least: int) -> list[str]:
    images = files.images_below(folder)
    if not images:
        raise UserError(f'no images in {files.path(folder)}' + files.others_below(folder))
    if len(images) < least:
        raise UserError(f'{files.path(folder)} has one image: each class needs one to train with and one to validate '
                        'with')
    return images
