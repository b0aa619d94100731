"""COCO's panoptic form, in which each pixel is of a thing or of stuff.

A file such as ``annotations/panoptic_train2017.json`` lists the segments of each image. The folder of the same name,
``annotations/panoptic_train2017``, has a PNG for each image, called like the image; a colour is a segment's id, red +
256·green + 256²·blue. Categories say by ``isthing`` whether they are countable.
"""
import json
import posixpath
from pathlib import Path
from typing import Any

from dwnet.errors import UserError, some

from .files import Files, part_in
from .table import Entry, Table, leave_out, without_missing

NAME = 'panoptic'
NEEDS = "COCO's panoptic files (panoptic_train2017.json), beside each a folder of PNGs of its name, and the images"


def read(files: Files, out: Path) -> Table | None:
    """The images of ``files`` with their segments, whose classes are things first; None if there is no such file."""
    names = [name for name in files.ending('.json') if files.mention(name, b'"segments_info"')]
    if not names:
        return None
    contents = {name: _content(files.path(name)) for name in names}
    isthing: dict[str, bool] = {}
    for name, content in contents.items():
        for category in content['categories']:
            thing = bool(category['isthing'])
            if isthing.setdefault(category['name'], thing) != thing:
                raise UserError(f'{files.path(name)} has {category["name"]} as {"a thing" if thing else "stuff"}, and '
                                f'another file of {files.root} has not: give each category one isthing')
    things = [name for name, thing in isthing.items() if thing]
    classes = [*things, *(name for name, thing in isthing.items() if not thing)]
    if not things or len(things) == len(classes):
        raise UserError(f'{files.root} has {"no things" if not things else "no stuff"} among its categories ('
                        f'{some(classes)}): a panoptic model needs both; for one kind take a detector or a segmentor')
    table = Table(f'COCO panoptic ({some(names)})', classes, {}, things=len(things))
    for name, content in contents.items():
        part = part_in(name) or 'all'
        table.parts.setdefault(part, []).extend(_entries(content, classes, name, part, files, table.notes))
    return table


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        # ids have a hash, names are text, and the rest are numbers; what is not raises
        for image in content['images']:
            hash(image['id']), image['file_name'] + '', image['width'] + image['height'] + 0
        for annotation in content['annotations']:
            hash(annotation['image_id']), annotation['file_name'] + ''
            for segment in annotation['segments_info']:
                hash(segment['id']), hash(segment['category_id']), segment['bbox'][3] + segment['area'] + 0
        for category in content['categories']:
            hash(category['id']), category['name'] + '', category['isthing'] + 0
        for key in ('images', 'categories'):
            if len({each['id'] for each in content[key]}) < len(content[key]):
                raise ValueError(f'two {key} have one id')
    except Exception as error:  # a broken file may raise anything
        reason = f'{error} is missing' if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise UserError(f'{path} is no whole panoptic file of COCO ({reason}); make it again, or copy it again'
                        ) from error
    return content


def _entries(content: dict, classes: list[str], name: str, part: str, files: Files, notes: list[str]) -> list[Entry]:
    label = {category['id']: classes.index(category['name']) for category in content['categories']}
    images = {image['id']: image for image in content['images']}
    where, segments = str(files.path(name)), name.removesuffix('.json')
    entries: list[Entry] = []
    broken: dict[str, list[str]] = {'of an unknown image': [], 'with an unknown category': [], 'without a PNG': []}
    for annotation in content['annotations']:
        png = posixpath.join(segments, annotation['file_name'])
        image = images.get(annotation['image_id'])
        if image is None:
            broken['of an unknown image'].append(annotation['file_name'])
        elif any(segment['category_id'] not in label for segment in annotation['segments_info']):
            broken['with an unknown category'].append(annotation['file_name'])
        elif png not in files:
            broken['without a PNG'].append(png)
        else:
            objects = [{**{key: value for key, value in segment.items() if key != 'category_id'},
                        'label': label[segment['category_id']]} for segment in annotation['segments_info']]
            entries.append(Entry(image['file_name'], size=(image['width'], image['height']), objects=objects, mask=png))
    leave_out(broken, len(content['annotations']), f'annotations of {where}', notes)
    return without_missing(entries, lambda entry: _locate(entry, name, part, files), where, notes)


def _locate(entry: Entry, name: str, part: str, files: Files) -> str | None:
    """The image of an entry of the file ``name``; the PNG of its segments, which may be called alike, is none."""
    folders = [folder for folder in files.folders() if part_in(folder) == part]
    place = next((place for folder in folders if (place := posixpath.join(folder, entry.image)) in files), None)
    place = place or files.locate(entry.image, posixpath.dirname(name), part)
    return place if place != entry.mask else None
