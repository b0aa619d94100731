"""The lines of YOLO's label files, as objects.

A line is the number of a class and a box (x and y of its centre, width, height) or a polygon (x and y of each corner),
as fractions of the image's width and height. A fifth number behind a box is the confidence of a prediction, or the
number of a track.
"""
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from .files import Files, read_text, with_progress
from .shapes import settle_boxes
from .sizes import read_sizes
from .table import Entry, leave_out

_LINE = re.compile(r'\d+(\.0*)?(\s+[-+]?[\d.]+(e[-+]?\d+)?){4,}', re.IGNORECASE)
_SLACK = .1  # how far a number may lie outside of 0…1


def is_label_file(files: Files, name: str) -> bool:
    """Whether the first line of a text file is one of a label file."""
    return any(_LINE.match(line) for line in [line for _, line in _lines(files, name)][:1])


def read_label_files(files: Files, images: Mapping[str, list[str]], label_files: Mapping[str, str],
                     names: Mapping[int, str], notes: list[str]) -> dict[str, list[Entry]]:
    """Reads the objects of images.

    Args:
        files: The files below the data root.
        images: Part → names of images.
        label_files: Image → its label file; an image without one has no objects.
        names: The names of the classes, by their numbers.
        notes: The notes of the table.

    Returns:
        Part → entries, whose objects have the names of their classes as labels. A few broken images or lines are left
        out.

    Raises:
        UserError: If many images or lines are broken.
    """
    parts: dict[str, list[Entry]] = {}
    damaged: list[str] = []
    faults: dict[str, list[str]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for part, its in images.items():
        parts[part] = []
        for image in with_progress(its, f'labels of {part}'):
            if (sizes := read_sizes(files.path(image))) is None:
                damaged.append(image)
                continue
            objects: list[dict] = []
            for number, line in _lines(files, label_files.get(image)):
                counts['lines'] += 1
                try:
                    thing = _object(line, names, *sizes.upright, counts)
                except ValueError as error:
                    faults[str(error)].append(f'line {number} of {label_files[image]}')
                    continue
                counts['lines stand twice in a label file and count once'] += thing in objects
                objects += [thing] * (thing not in objects)
            counts['images have no label file, or an empty one: they are images without objects'] += not objects
            parts[part].append(Entry(image, size=sizes.upright, objects=objects))
    total = sum(map(len, images.values()))
    leave_out({'with a header that cannot be read': damaged}, total, f'images below {files.root}', notes)
    leave_out(faults, counts.pop('lines', 0), f'lines of label files below {files.root}', notes)
    notes += [f'{count} {what}' for what, count in counts.items() if count]
    settle_boxes([each for entries in parts.values() for entry in entries for each in entry.objects], notes)
    return parts


def _lines(files: Files, name: str | None) -> Iterator[tuple[int, str]]:
    """The lines of a label file that are neither empty nor comments, with their numbers."""
    for number, line in enumerate(read_text(files.path(name)).splitlines() if name else (), start=1):
        if content := line.partition('#')[0].strip():
            yield number, content


def _object(line: str, names: Mapping[int, str], width: int, height: int, counts: Counter[str]) -> dict:
    """The object of a line.

    Raises:
        ValueError: If the line is broken; the message says how.
    """
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise ValueError('with words in the place of numbers') from None
    if number not in names:
        raise ValueError('with a class that has no name')
    if len(values) == 5:
        counts['lines have a sixth number (a confidence, or the number of a track), which is passed over'] += 1
        values = values[:4]
    if len(values) < 4 or len(values) % 2:
        raise ValueError('with as many numbers as neither a box nor a polygon has (keypoints?)')
    if not all(-_SLACK <= value <= 1 + _SLACK for value in values):  # NaN fails, too
        raise ValueError('with numbers that are no fractions of the width and the height, 0…1 (pixels?)')
    kind = 'box' if len(values) == 4 else 'outline'
    if kind == 'box':
        x, y, w, h = values
        values = [x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2]
    points = np.reshape(values, (-1, 2)) * (width, height)
    extent = points.max(0) - points.min(0)
    if not (extent > 0).all() or kind == 'box' and (w < 0 or h < 0):
        raise ValueError('without a width or a height')
    return dict(label=names[int(number)], iscrowd=0, kind=kind, bbox=[*points.min(0).tolist(), *extent.tolist()],
                segmentation=[points.ravel().tolist()])
