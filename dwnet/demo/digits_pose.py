"""Makes scenes of digits with keypoints, from the same handwriting as :mod:`dwnet.demo.digits`.

The files lie as COCO's do::

    digits_pose/
      scenes/{train,test}/00000.jpg    three to five digits, 128×128
      annotations/{train,test}.json    each digit's box, area and keypoints
      manifest.json                    the settings, and each file's checksum

The keypoints are where the visible ink of a digit ends at the top, bottom, left and right, and the middle of the ink.
An end is the mean of the ink within the outermost tenth of the digit's height or width. A digit of the test part never
occurs in the training part.
"""
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from . import digits

ROOT = Path('data/digits_pose')  # the config expects the data here, below the current folder
KEYPOINTS = ('top', 'bottom', 'left', 'right', 'middle')
END = .1  # of a digit's height or width
VISIBLE = 2  # COCO's word for a keypoint that is labelled and not hidden


@dataclass(frozen=True)
class PoseDigits(digits.Scenes):
    """Settings of scenes of digits with keypoints.

    Attributes:
        folders: The folders below the data's root.
    """
    train_scenes: int = 500
    test_scenes: int = 100
    folders: ClassVar[tuple[str, ...]] = ('scenes', 'annotations')

    def draw(self, root: Path) -> Iterator[None]:
        """Draws and writes all files below ``root``; yields after each picture."""
        (root / 'annotations').mkdir()
        scenes = dict(train=self.train_scenes, test=self.test_scenes)
        for part, artist in digits.artists(self.seed).items():
            (root / 'scenes' / part).mkdir(parents=True)
            coco: dict[str, list[dict]] = dict(
                images=[], annotations=[], categories=[dict(id=1, name='digit', keypoints=list(KEYPOINTS))])
            for number in range(scenes[part]):
                image, placed = artist.scene()
                name = f'{number:05d}.jpg'
                image.save(root / 'scenes' / part / name, quality=95)
                coco['images'].append(dict(id=number, file_name=name, width=image.width, height=image.height))
                for _, mask in placed:
                    coco['annotations'].append(dict(
                        id=len(coco['annotations']) + 1, image_id=number, category_id=1, **describe(mask)))
                yield
            (root / f'annotations/{part}.json').write_text(json.dumps(coco))


def keypoints_of(mask: np.ndarray) -> np.ndarray:
    """The keypoints of visible ink, (H, W) bool: (5, 2) float, x and y in pixels."""
    y, x = np.nonzero(mask)
    height, width = np.ptp(y), np.ptp(x)
    parts = [y <= y.min() + END * height, y >= y.max() - END * height,
             x <= x.min() + END * width, x >= x.max() - END * width, np.full(len(x), True)]
    return np.array([(x[part].mean(), y[part].mean()) for part in parts])


def describe(mask: np.ndarray) -> dict:
    """What COCO's annotations tell of an object with keypoints."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    points = keypoints_of(mask).round(2)
    return dict(bbox=[left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top], area=int(mask.sum()), iscrowd=0,
                num_keypoints=len(points), keypoints=[v for x, y in points.tolist() for v in (x, y, VISIBLE)])
