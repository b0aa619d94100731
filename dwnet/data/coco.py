"""COCO annotations.

The annotation files lie anywhere below the root, such as ``annotations/instances_train2017.json`` or
``train/_annotations.coco.json``; their names or folders tell the part.
"""
import mmap
import posixpath
from collections import defaultdict
from pathlib import Path

from dwnet.errors import UserError, some

from .coco_file import read_coco
from .files import Files, part_in
from .table import Entry, Table, without_missing

NAME = 'coco'
NEEDS = 'a COCO file (.json), in the folder annotations'


def read(files: Files, out: Path) -> Table | None:
    """The annotated images of ``files``; None if there is no COCO file. A part may have several annotation files."""
    found = _coco_files(files)
    if not found:
        return None
    names = list(found)
    of_part = {name: part_in(name) for name in names}
    if None in of_part.values() and len(set(of_part.values())) > 1:
        raise UserError(f'{files.root} has the annotation files {some(names)}, and the name of '
                        f'{some(name for name in names if of_part[name] is None)} does not tell to which part it '
                        'belongs: call it like train, val or test, or put it into a folder called so')
    contents = {name: _read_coco(files.path(name)) for name in names}
    first = sorted(contents, key=lambda name: (of_part[name] not in ('train', None), name))
    used = set()
    for content in contents.values():
        ids = {annotation['category_id'] for annotation in content['annotations']}
        used |= {category['name'] for category in content['categories'] if category['id'] in ids}
    classes = list(dict.fromkeys(category['name'] for name in first for category in contents[name]['categories']
                                 if category['name'] in used))  # some tools add a class above all
    table = Table(f'COCO ({some(names)})', classes, {})
    for name, content in contents.items():
        label = {category['id']: classes.index(category['name']) for category in content['categories']
                 if category['name'] in used}
        objects = defaultdict(list)
        for annotation in content['annotations']:
            kept = {key: value for key, value in annotation.items() if key not in ('id', 'image_id', 'category_id')}
            objects[annotation['image_id']].append({**kept, 'label': label[annotation['category_id']]})
        part = of_part[name] or 'all'
        entries = [Entry(image['file_name'], size=(image['width'], image['height']), objects=objects[image['id']])
                   for image in content['images']]

        def find(entry: Entry, near: str = posixpath.dirname(name), part: str = part) -> str | None:
            return files.locate(entry.image, near, part)

        entries = without_missing(entries, find, str(files.path(name)), table.notes)
        table.parts[part] = [*table.parts.get(part, []), *entries]
    return table


def _coco_files(files: Files) -> list[str]:
    """The JSON files with images and categories; COCO has captions and keypoints beside instances."""
    names = [name for name in files.ending('.json') if _looks_like_coco(files, name)]
    instances = [name for name in names if 'instances' in posixpath.basename(name)]
    if instances and len(instances) < len(names):
        files.notes.append(f'{some(name for name in names if name not in instances)} are passed over, since the names '
                           'of other COCO files have the word instances')
    return instances or names


def _looks_like_coco(files: Files, name: str) -> bool:
    """Whether a file has COCO's key "images", which many annotations before it and images behind it may hide."""
    if files.mention(name, b'"images"'):
        return True
    if not files.mention(name, b'"annotations"'):
        return False
    with files.path(name).open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b'"images"') >= 0


def _read_coco(path: Path) -> dict:
    content = read_coco(str(path))
    for key in ('images', 'categories'):
        if not content[key]:
            raise UserError(f'{path} has no {key}; export it again, with images, categories and annotations')
    return content
