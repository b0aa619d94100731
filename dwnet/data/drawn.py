"""Objects with outlines as label images: what annotates a detector trains a segmentor, too.

Class 0 is the background. Larger objects are drawn first, so that smaller ones stay visible. Crowds, and what LabelMe
calls ``__ignore__``, get label 255, which no training looks at.
"""
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from dwnet.errors import UserError

from . import coco, cvat, labelme, voc, yolo
from .files import Files, with_progress
from .orientation import turn_pixels
from .own import write_whole
from .shapes import Broken
from .sizes import read_sizes
from .table import Entry, Table, leave_out, once

_IGNORED = 255
_BACKGROUND = ('background', labelme.BACKGROUND)


@dataclass(frozen=True)
class Drawn:
    """A form of data for segmentation: the objects of a form for detection, drawn.

    Attributes:
        NAME: The name of that form.
        NEEDS: What is needed, in words.
        objects: Reads that form.
    """
    NAME: str
    NEEDS: str
    objects: Callable[[Files, Path], Table | None]

    def read(self, files: Files, out: Path) -> Table | None:
        """The images of ``files`` with label images, which are written into ``out``; None if there are no objects."""
        return (table := self.objects(files, out)) and _with_label_images(table, files, out)


FORMS = (*(Drawn(form.NAME, f'{form.NEEDS}, with outlines', form.read) for form in (coco, yolo, voc, cvat)),
         Drawn(labelme.NAME, f'{labelme.NEEDS}, with outlines', labelme.regions))


def _with_label_images(table: Table, files: Files, out: Path) -> Table:
    objects = [each for entries in table.parts.values() for entry in entries for each in entry.objects]
    if objects and not any(each.get('segmentation') for each in objects):
        raise UserError(f'the objects of {files.root} ({table.form}) have boxes and no outlines: a segmentor needs '
                        'polygons or masks, so draw these, or train a detector')
    classes, label_of = _labels(table.classes)
    parts, notes, faults, scaled = {}, [*table.notes], defaultdict(list), []
    for part, entries in table.parts.items():
        parts[part] = entries = once(entries, part, files, notes)  # one label image holds the objects of all entries
        if not any(entry.objects for entry in entries):  # such as a test part without annotations
            continue
        for i, entry in enumerate(with_progress(entries, 'drawing label images')):
            sizes = read_sizes(files.path(entry.image))
            if sizes is None and entry.size is None:
                raise UserError(f'{files.path(entry.image)} cannot be read: put it there again')
            if sizes and entry.size not in (None, *sizes):
                scaled.append(entry.image)
                continue
            labels = _draw(entry, sizes.upright if sizes else entry.size, label_of, faults)
            if sizes and labels.shape[::-1] == sizes.unturned != sizes.upright:  # the tool did not turn the image
                labels = turn_pixels(labels, sizes.orientation)
            content = io.BytesIO()
            Image.fromarray(labels).save(content, 'PNG')
            name = entry.image.removeprefix(f'{out}/')  # of an image that is written there
            path = write_whole(out / 'labels' / f'{name}.png', content.getvalue())
            entries[i] = entry._replace(objects=(), mask=path)
        parts[part] = [entry for entry in entries if entry.mask]
    leave_out({'of another size than their annotations say': scaled}, sum(map(len, table.parts.values())),
              f'images below {files.root}', notes)
    leave_out(faults, len(objects), f'objects below {files.root}', notes)
    return replace(table, classes=classes, parts=parts, notes=notes)


def _labels(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """The classes of pixels, and the label in the place of each label of objects."""
    classes = ['background', *(name for name in names if name.lower() not in _BACKGROUND and name != labelme.IGNORED)]
    if len(classes) > _IGNORED:
        raise UserError(f'{len(classes)} classes with the background: label images have {_IGNORED} at most, join some')
    number = {name: label for label, name in enumerate(classes)}
    return classes, [_IGNORED if name == labelme.IGNORED else number.get(name, 0) for name in names]


def _draw(entry: Entry, upright: tuple[int, int], label_of: list[int], faults: dict[str, list[str]]) -> np.ndarray:
    """The label image, of the pixels that the tool has shown."""
    size, masks = entry.size if entry.size == upright[::-1] else upright, []
    for each in entry.objects:
        try:
            mask = _run_lengths(each.get('segmentation'), size)
        except Broken as error:
            faults[str(error)].append(f'one of {entry.image}')
        else:
            crowd = bool(each.get('iscrowd'))
            masks.append((crowd, int(coco_mask.area(mask)), _IGNORED if crowd else label_of[each['label']], mask))
    drawn = np.zeros(size[::-1], np.uint8)
    for *_, label, mask in sorted(masks, key=lambda each: each[:2], reverse=True):  # crowds, then by area
        drawn[coco_mask.decode(mask) > 0] = label
    return drawn


def _run_lengths(segmentation: list | dict | None, size: tuple[int, int]) -> dict:
    if not segmentation:
        raise Broken('with a box and no outline')
    if isinstance(segmentation, dict):
        if list(segmentation['size']) != [*size[::-1]]:
            raise Broken('with a mask of another size than the image')
        is_packed = isinstance(segmentation['counts'], str)
        return segmentation if is_packed else coco_mask.frPyObjects(segmentation, *size[::-1])
    if not (polygons := [polygon for polygon in segmentation if len(polygon) >= 6]):
        raise Broken('with fewer than 3 points')
    return coco_mask.merge(coco_mask.frPyObjects(polygons, *size[::-1]))
