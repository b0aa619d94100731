"""ImageNet-1K, COCO and ADE20K in miniature: the folders, names, formats and label ranges of the real ones."""
import json
from pathlib import Path

import numpy as np
from PIL import Image

Size = tuple[int, int]  # width, height
# The ids that COCO leaves out of 1…90; its 80 categories have the others.
_NO_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def _picture(rng: np.random.RandomState, size: Size, mode: str = 'RGB') -> Image.Image:
    """A smooth random image."""
    coarse = Image.fromarray(rng.randint(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def make_imagenet(root: Path) -> None:
    """1000 class folders, most of them empty; four images for training, four for validation.

    One image is grey, as some of ImageNet are.
    """
    rng = np.random.RandomState(0)
    sizes = [(500, 375), (375, 500), (143, 97), (400, 400)]
    for part, labels in (('train', (0, 1, 500, 999)), ('val', (0, 7, 500, 999))):
        folders = [root / part / f'n{1000000 + 17 * i:08d}' for i in range(1000)]
        for folder in folders:
            folder.mkdir(parents=True)
        for i, (label, size) in enumerate(zip(labels, sizes)):
            name = f'{folders[label].name}_{i}.JPEG' if part == 'train' else f'ILSVRC2012_val_{i + 1:08d}.JPEG'
            _picture(rng, size, 'L' if i == 1 else 'RGB').save(folders[label] / name, 'JPEG')


def make_coco(root: Path) -> None:
    """Five images for training, one of them without an object, and two for validation.

    An image has one object as large as itself, several smaller ones and, in each part once, a crowd as an RLE.
    """
    from mmdet.datasets import CocoDataset
    rng = np.random.RandomState(1)
    ids = [i for i in range(1, 91) if i not in _NO_COCO_IDS]
    categories = [dict(supercategory='thing', id=i, name=name)
                  for i, name in zip(ids, CocoDataset.METAINFO['classes'], strict=True)]
    (root / 'annotations').mkdir(parents=True)
    parts = dict(train2017=[(640, 427), (427, 640), (500, 375), (480, 640), (333, 500)],
                 val2017=[(640, 427), (375, 500)])
    for part, sizes in parts.items():
        (root / part).mkdir()
        images, annotations = [], []
        for i, size in enumerate(sizes):
            image = dict(id=9 + 16 * i, file_name=f'{9 + 16 * i:012d}.jpg', width=size[0], height=size[1], license=1)
            _picture(rng, size, 'L' if i == 1 else 'RGB').save(root / part / image['file_name'])
            images.append(image)
            if i == 4:
                continue
            objects = [_polygon(rng, size, whole=k == 0) for k in range(5)] + [_crowd(size)] * (i == 0)
            for thing in objects:
                category = ids[rng.choice([0, 11, 40, 79])]  # the first, the last, and two after gaps
                annotations.append(
                    dict(id=len(annotations) + 1, image_id=image['id'], category_id=category, **thing))
        (root / f'annotations/instances_{part}.json').write_text(json.dumps(dict(
            info=dict(year=2017), licenses=[dict(id=1, name='', url='')],
            images=images, annotations=annotations, categories=categories)))


def _polygon(rng: np.random.RandomState, size: Size, whole: bool) -> dict:
    """An ellipse as a polygon of twelve corners; ``whole``: as large as the image."""
    extent = np.array(size)
    radius = extent / 2 if whole else rng.uniform(.05, .25, 2) * extent
    center = radius + rng.uniform(0, 1, 2) * (extent - 2 * radius)
    angle = np.arange(12) * np.pi / 6
    points = (center + radius * np.stack([np.cos(angle), np.sin(angle)], 1)).round(2)
    x, y = points.T
    area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2  # the shoelace formula
    corner, far = points.min(0), points.max(0)
    return dict(segmentation=[points.ravel().tolist()], area=float(area), bbox=[*corner, *(far - corner)], iscrowd=0)


def _crowd(size: Size) -> dict:
    """The right third of the image as an uncompressed RLE: lengths of runs of 0 and 1, column by column."""
    width, height = size
    left = width * 2 // 3
    counts = [left * height, (width - left) * height]
    return dict(segmentation=dict(counts=counts, size=[height, width]), area=counts[1],
                bbox=[left, 0, width - left, height], iscrowd=1)


def make_ade20k(root: Path) -> None:
    """Four images for training, two for validation, with labels 1…150 and, where nothing is labelled, 0."""
    rng = np.random.RandomState(2)
    parts = [('training', 'train', [(683, 512), (256, 256), (512, 683), (301, 227)]),
             ('validation', 'val', [(683, 512), (299, 403)])]
    for part, short, sizes in parts:
        for kind in ('images', 'annotations'):
            (root / kind / part).mkdir(parents=True)
        for i, size in enumerate(sizes):
            name = f'ADE_{short}_{i + 1:08d}'
            _picture(rng, size).save(root / f'images/{part}/{name}.jpg')
            labels = rng.randint(0, 151, (8, 8)).astype(np.uint8)
            labels[0, :2] = 0, 150
            Image.fromarray(labels).resize(size, Image.Resampling.NEAREST).save(root / f'annotations/{part}/{name}.png')
