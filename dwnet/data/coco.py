"""COCO annotations: found below a folder, and read; broken entries are logged and left out.

The annotation files are ``ROOT/annotations/{train,val}.json``, or a single one, and the images lie anywhere below
``ROOT``. Each part has ``ann_file``, the annotation file, and ``images``, the folder to which file names are relative.
"""
import json
import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from dwnet.errors import UserError, some

from .parts import OwnData, held_out, part_of, with_val, write_split

NEEDS = 'a COCO file (.json), in the folder annotations'
# Pixels. Millions in a polygon make pycocotools overflow its memory; infinity in a box, torchvision's RoI align.
_LARGEST = 100_000


def read_coco(path: str) -> dict[str, Any]:
    """The content of an annotation file without broken entries, which the log lists.

    Raises:
        UserError: If the file is no COCO file, or more than ten and more than 1 % of its images, categories or
            annotations are broken.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        images, categories = list(content['images']), list(content['categories'])
        annotations = list(content.get('annotations', ()))  # test sets are published without
    except Exception as error:  # a broken file may raise anything
        reason = f'{error} is missing' if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise UserError(
            f'{path} is no whole COCO annotation file ({reason}); make it again, or copy it again') from error
    images = _sound(images, _fault_of_image, f'images of {path}')
    categories = _sound(categories, _fault_of_category, f'categories of {path}')
    sizes = {image['id']: (image['width'], image['height']) for image in images}
    known = {category['id'] for category in categories}
    having = [bool(annotation.get('segmentation')) for annotation in annotations if isinstance(annotation, dict)]
    masks, without = any(having), having.count(False)
    if masks and without > max(10, len(annotations) // 100):
        raise UserError(f'{without} of {len(annotations)} annotations of {path} have a box and no mask, the others '
                        'have both: draw masks for those, too, or leave out every segmentation to train with boxes')

    def fault_of_annotation(annotation: dict) -> str | None:
        if annotation['image_id'] not in sizes:
            return 'of an unknown image'
        if annotation['category_id'] not in known:
            return 'of an unknown category'
        size = sizes[annotation['image_id']]
        fault = _fault_of_box(annotation, *size)
        return fault or (_fault_of_mask(annotation.get('segmentation'), *size) if masks else None)

    annotations = _sound(annotations, fault_of_annotation, f'annotations of {path}')
    for annotation in annotations:
        annotation.setdefault('iscrowd', 0)  # COCO's evaluation needs the key; some tools leave it out
    if any(annotation['id'] == 0 for annotation in annotations):
        print_log(f"{path}: annotation ids start at 0, which COCO's evaluation takes for 'no match'; number them "
                  'from 1', logger='current', level=logging.WARNING)
    return {**content, 'images': images, 'annotations': annotations, 'categories': categories}


def _sound(entries: list, fault_of: Callable[[dict], str | None], what: str) -> list[dict]:
    """The entries with a unique id and without a fault; the log lists the others."""
    sound, faults, seen = [], defaultdict(list), set()
    for number, entry in enumerate(entries):
        name = f'number {number}'
        try:
            name = entry['id']
            if not isinstance(name, (int, str)):
                fault = 'with an id that is none'
            elif name in seen:
                fault = 'with the id of another'
            else:
                fault = fault_of(entry)
            seen.add(name)
        except KeyError as error:
            fault = f'without {error}'
        except Exception:  # wrong types
            fault = 'of another form'
        if fault:
            faults[fault].append(str(name)[:50])
        else:
            sound.append(entry)
    total = len(entries) - len(sound)
    listed = '; '.join(f"{fault}: {', '.join(names[:1000])}{', …' if len(names) > 1000 else ''}"
                       for fault, names in faults.items())
    if total > max(10, len(entries) // 100) or entries and not sound:
        raise UserError(f'{total} of {len(entries)} {what} are broken ({listed}); mend or remove them')
    if total:
        print_log(f'{total} of {len(entries)} {what} are broken and left out ({listed})', logger='current',
                  level=logging.ERROR)
    return sound


def _fault_of_image(image: dict) -> str | None:
    if not isinstance(image['file_name'], str) or not image['file_name'] or '\0' in image['file_name']:
        return 'without a file name'
    if not all(isinstance(image[side], int) and 0 < image[side] <= _LARGEST for side in ('width', 'height')):
        return 'without a size'
    return None


def _fault_of_category(category: dict) -> str | None:
    return None if isinstance(category['name'], str) else 'without a name'


def _fault_of_box(annotation: dict, width: int, height: int) -> str | None:
    x, y, w, h = annotation['bbox']
    if not all(abs(value) <= _LARGEST for value in (x, y, w, h)):  # NaN fails, too
        return 'with a box far outside the image'
    if w < 1 or h < 1 or not annotation['area'] > 0:
        return 'with a box smaller than a pixel'
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return 'with a box outside the image'
    return None


def _fault_of_mask(segmentation: Any, width: int, height: int) -> str | None:
    if isinstance(segmentation, dict):
        if list(segmentation['size']) != [height, width]:
            return 'with a mask of another size than the image'
        counts = segmentation['counts']
        if not isinstance(counts, str) and (sum(counts) != width * height or min(counts) < 0):
            return 'with a mask that is none'
        return None
    polygons = [polygon for polygon in segmentation or [] if len(polygon) >= 6 and len(polygon) % 2 == 0]
    if not polygons:
        return 'without a mask'
    if not all(abs(value) <= _LARGEST for polygon in segmentation for value in polygon):  # NaN fails, too
        return 'with a polygon far outside the image'
    return None


# --- Below a folder --------------------------------------------------------------------------------------


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
