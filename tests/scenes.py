"""Pictures with objects, which the tests write in the forms of several tools."""
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dwnet.data import coco
from dwnet.data.files import Files
from dwnet.data.table import Table

NAMES = ['cat', 'dog', 'owl']


class Scene(NamedTuple):
    """A picture: its name without the ending, width and height, and the class and the corners of each object."""
    stem: str
    size: tuple[int, int]
    objects: list[tuple[str, np.ndarray]]


def make_scenes(number: int = 6, seed: int = 0) -> list[Scene]:
    """Pictures of other sizes, the first without an object; the corners are whole pixels."""
    rng = np.random.default_rng(seed)
    scenes = []
    for i in range(number):
        width, height = size = int(rng.integers(40, 70)), int(rng.integers(30, 50))
        objects = []
        for k in range(i % 4):
            left, top = rng.integers(1, width - 20), rng.integers(1, height - 15)
            w, h = rng.integers(5, 18), rng.integers(5, 13)
            objects.append((NAMES[(i + k) % 3], np.array([
                [left, top], [left + w, top + h // 2], [left + w // 2, top + h], [left, top + h // 3]], float)))
        scenes.append(Scene(f'picture {i}', size, objects))
    return scenes


def box_of(polygon: np.ndarray) -> list[float]:
    """x, y, width, height."""
    return [*polygon.min(0).tolist(), *np.ptp(polygon, 0).tolist()]


def write_picture(path: Path, size: tuple[int, int], ending: str = '.jpg', **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, len(path.stem) * 20).save(path.with_name(path.name + ending), **options)


def table_of_coco(root: Path, scenes: Sequence[Scene]) -> Table:
    """The scenes as COCO, read again."""
    for scene in scenes:
        write_picture(root / 'images' / scene.stem, scene.size)
    things = [(i, name, polygon) for i, scene in enumerate(scenes) for name, polygon in scene.objects]
    (root / 'all.json').write_text(json.dumps(dict(
        images=[dict(id=i, file_name=f'{scene.stem}.jpg', width=scene.size[0], height=scene.size[1])
                for i, scene in enumerate(scenes)],
        categories=[dict(id=7 + i, name=name) for i, name in enumerate(NAMES)],
        annotations=[dict(id=k, image_id=i, category_id=7 + NAMES.index(name), iscrowd=0, bbox=box_of(polygon), area=30,
                          segmentation=[polygon.ravel().tolist()]) for k, (i, name, polygon) in enumerate(things, 1)])))
    table = coco.read(Files(root), root / 'out')
    assert table is not None
    return table


def content(table: Table) -> dict[str, tuple]:
    """The name of a picture → its size, and the class, the box and the polygon of each object."""
    return {Path(entry.image).stem: (tuple(entry.size), [
        (table.classes[each['label']], np.array(each['bbox']), np.ravel(each.get('segmentation', ())))
        for each in entry.objects]) for entries in table.parts.values() for entry in entries}


def assert_same(table: Table, other: Table, pixels: float, masks: bool = False) -> None:
    """Two tables have the same pictures, classes, boxes to ``pixels``, and, if wanted, polygons."""
    ours, theirs = content(table), content(other)
    assert ours.keys() == theirs.keys() and ours
    for stem in ours:
        assert ours[stem][0] == theirs[stem][0], stem
        assert [name for name, *_ in ours[stem][1]] == [name for name, *_ in theirs[stem][1]], stem
        for (_, box, polygon), (_, their_box, their_polygon) in zip(ours[stem][1], theirs[stem][1]):
            np.testing.assert_allclose(box, their_box, rtol=0, atol=pixels)
            if masks:
                np.testing.assert_allclose(polygon, their_polygon, rtol=0, atol=pixels)
            else:
                assert not len(polygon)
