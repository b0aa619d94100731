"""COCO annotations, found below a folder.

The annotation files are ``ROOT/annotations/{train,val}.json``, or a single one, and the images lie anywhere below
``ROOT``. Each part has ``ann_file``, the annotation file, and ``images``, the folder to which file names are relative.
"""
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from dwnet.errors import UserError, some

from .coco_file import read_coco
from .parts import OwnData, held_out, part_of, with_val, write_split

NEEDS = 'a COCO file (.json), in the folder annotations'


def find(root: Path, split: Path) -> OwnData | None:
    """The data below ``root``; None if there are none of this form. Lists of a split are written into ``split``."""
    files = sorted(path for pattern in ('*.json', '*/*.json', '*/*/*.json') for path in root.glob(pattern)
                   if not any(part.startswith('.') for part in path.relative_to(root).parts))
    if root in split.parent.parents:  # the work dir of an earlier training may be among the data
        files = [path for path in files if not path.is_relative_to(split.parent)]
    if len(files) > 1:  # COCO has captions and keypoints beside instances
        files = [path for path in files if 'instances' in path.name] or files
    if not files:
        return None
    by_part = defaultdict(list)
    for path in files:
        words = _words_of(path, root)
        by_part[next((part for word in words if (part := part_of(word))), None)].append(path)
    if len(files) > 1 and None in by_part or any(len(paths) > 1 for paths in by_part.values()):
        raise UserError(f'{root} has the annotation files {some(path.relative_to(root) for path in files)}, and their '
                        'names do not tell which one trains: leave train.json and val.json, or a single one')
    contents = {part: _read_coco(paths[0]) for part, paths in by_part.items()}
    sources = {part: paths[0] for part, paths in by_part.items()}
    if len(files) == 1:
        (content, source), = zip(contents.values(), sources.values())
        contents = _split_coco(content, source)
        sources = dict.fromkeys(contents, source)
        ann_files = {part: write_split(split, f'{part}.json', json.dumps(content))
                     for part, content in contents.items()}
    else:
        if 'train' not in contents:
            raise UserError(f'none of the annotation files of {root} has train in its name: {some(files)}')
        both = with_val({part: (contents[part], sources[part]) for part in contents}, root)
        contents = {part: content for part, (content, _) in both.items()}
        sources = {part: source for part, (_, source) in both.items()}
        ann_files = {part: str(path) for part, path in sources.items()}
    names = {part: {category['id']: category['name'] for category in content['categories']}
             for part, content in contents.items()}
    used = {names[part].get(annotation['category_id']) for part, content in contents.items()
            for annotation in content['annotations']}
    classes = [name for name in names['train'].values() if name in used]  # some tools add a class above all
    if unknown := sorted(used - set(classes) - {None}):
        raise UserError(f"{sources['val']} has objects of {some(unknown)}, which {sources['train']} does not know")
    parts = {}
    for part, content in contents.items():
        folder = _folder_of_images([image['file_name'] for image in content['images']], root, sources[part], part)
        parts[part] = dict(ann_file=ann_files[part], images=str(folder))
    sizes = {part: len(content['images']) for part, content in contents.items()}
    having = {part: all(annotation.get('segmentation') for annotation in content['annotations'])
              for part, content in contents.items()}
    if len(set(having.values())) > 1:
        with_masks, without = (next(sources[part] for part in having if having[part] == has) for has in (True, False))
        raise UserError(f'{with_masks} has masks and {without} has none: draw masks there, too, or leave out every '
                        'segmentation to train with boxes')
    return OwnData(root, classes, sizes, parts, having['train'])


def _words_of(path: Path, root: Path) -> list[str]:
    """``annotations/instances_train2017.json`` → annotations, instances, train, json."""
    return ''.join(c if c.isalpha() else ' ' for c in path.relative_to(root).as_posix()).split()


def _read_coco(path: Path) -> dict:
    content = read_coco(str(path))
    for key in ('images', 'categories', 'annotations'):
        if not content[key]:
            raise UserError(f'{path} has no {key}; export it again, with images, categories and annotations')
    return content


def _split_coco(content: dict, path: Path) -> dict[str, dict]:
    """Splits one file: a fifth of the images with objects, and a fifth of those without, are held out."""
    marked = {annotation['image_id'] for annotation in content['annotations']}
    held_back: set[str] = set()
    for wanted in (True, False):
        names = [image['file_name'] for image in content['images'] if (image['id'] in marked) == wanted]
        if wanted and len(names) < 2:
            raise UserError(f'{path} has one image with objects: one to train with and one to validate with is needed')
        held_back |= held_out(names) if len(names) > 1 else set()
    parts = {}
    for part in ('train', 'val'):
        images = [image for image in content['images'] if (image['file_name'] in held_back) == (part == 'val')]
        ids = {image['id'] for image in images}
        parts[part] = {**content, 'images': images,
                       'annotations': [each for each in content['annotations'] if each['image_id'] in ids]}
    return parts


def _folder_of_images(names: list[str], root: Path, source: Path, part: str) -> Path:
    """The folder with most images of an annotation file: first named like the part, then the file's, then any."""
    sample = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, 20).astype(int))]
    below = [path for path in root.rglob('*') if path.is_dir() and len(path.relative_to(root).parts) <= 3]

    def rank(folder: Path) -> tuple:
        words = _words_of(folder, root)
        return part not in [part_of(word) for word in words], folder != source.parent, len(folder.parts), folder

    folders = sorted([root, *below], key=rank)
    best = max(folders, key=lambda folder: sum((folder / name).is_file() for name in sample))
    if missing := [name for name in sample if not (best / name).is_file()]:
        raise UserError(f'{source} names images that are not below {root}: {some(missing)}; put them there, or mend '
                        'file_name in the annotations')
    return best
