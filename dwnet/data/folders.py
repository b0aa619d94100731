"""Images in folders of their classes: ``ROOT/{train,val}/CLASS/*.jpg``, or ``ROOT/CLASS`` without a split.

Each part has ``ann_file``, a list of image paths relative to the root, with labels.
"""
from collections import defaultdict
from pathlib import Path

from dwnet.errors import UserError, some

from .parts import OwnData, folders_in, held_out, images_below, part_of, parts_below, write_split

NEEDS = 'a folder of images for each class'


def find(root: Path, split: Path) -> OwnData:
    """The data below ``root``. Lists of a split are written into ``split``."""
    folders = _split_folders(root)
    of_class = {part: {path.name: path for path in folders_in(folder) if not split.is_relative_to(path)}
                for part, folder in folders.items()}  # without the work dir, or a folder that holds it
    names = sorted(of_class.get('train') or of_class.get('all', {}))
    if len(names) < 2:
        where = folders.get('train') or folders['all']
        raise UserError(f"{where} has {f'one class, {names[0]}' if names else 'no folders of classes'}: put the images "
                        'of each class into a folder of its name, for two classes at least')
    for part, classes in of_class.items():
        if not classes:
            raise UserError(f'{folders[part]} has no folders of classes, as {folders["train"]} has them: {some(names)}')
        if unknown := sorted(set(classes) - set(names)):
            raise UserError(f'{folders[part]} has classes that {folders["train"]} lacks: {some(unknown)}; name the '
                            'folders alike')
    lists: dict[str, list[str]] = defaultdict(list)
    for part, classes in of_class.items():
        for name, folder in classes.items():
            images = [f'{folder.relative_to(root).as_posix()}/{image}' for image in images_below(folder)]
            if part == 'all' and len(images) < 2:
                raise UserError(f'{folder} has one image: each class needs one to train with and one to validate with')
            held_back = held_out(images) if part == 'all' else ()
            for image in images:
                own = part if part != 'all' else 'val' if image in held_back else 'train'
                lists[own].append(f'{image} {names.index(name)}')
    parts = {part: dict(ann_file=write_split(split, f'{part}.txt', '\n'.join(lines) + '\n'))
             for part, lines in lists.items()}
    return OwnData(root, names, {part: len(lines) for part, lines in lists.items()}, parts)


def _split_folders(root: Path) -> dict[str, Path]:
    """Like ``parts_below``; 'all' if there is no split, or only a test set without classes, such as Kaggle's."""
    below = {part: path for path in folders_in(root) if (part := part_of(path.name))}
    if 'train' in below and 'test' in below and not folders_in(below['test']):
        train, test = below['train'], below['test']
        rest = '' if 'val' in below else f'; a fifth of {train} validates'
        print(f'{test} has no folders of classes and is left out{rest}')
        return dict(train=train, val=below['val']) if 'val' in below else dict(all=train)
    return parts_below(root) or dict(all=root)
