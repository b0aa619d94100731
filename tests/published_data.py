"""ImageNet-1K, COCO, ADE20K and Cityscapes in miniature: folders, names, formats and label ranges of the real ones."""
import json
from pathlib import Path

import numpy as np
from PIL import Image

Size = tuple[int, int]  # width, height
# The ids that COCO leaves out of 1…90; its 80 categories have the others.
_NO_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
# The ids of COCO's 53 categories of stuff.
_STUFF_IDS = [92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151,
              154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201)]


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


def make_coco_panoptic(root: Path) -> None:
    """What :func:`make_coco` makes, and for each image a PNG of segments: four things (one a crowd) over two of stuff.

    The fifth training image has stuff alone.
    """
    from mmdet.datasets import CocoPanopticDataset
    make_coco(root)
    rng = np.random.RandomState(3)
    things = [i for i in range(1, 91) if i not in _NO_COCO_IDS]
    names = zip([*things, *_STUFF_IDS], CocoPanopticDataset.METAINFO['classes'], strict=True)
    categories = [dict(id=i, name=name, isthing=int(i in things), supercategory='') for i, name in names]
    for part in ('train2017', 'val2017'):
        folder = root / f'annotations/panoptic_{part}'
        folder.mkdir()
        images = json.loads((root / f'annotations/instances_{part}.json').read_text())['images']
        annotations = []
        for i, image in enumerate(images):
            height, width = image['height'], image['width']
            segments = np.full((height, width), 2**16 + 1)  # an id beyond a byte: its colour has red and blue
            segments[height // 2:] = 300
            segments[:3] = 0  # pixels without a segment
            of_segment = {2**16 + 1: _STUFF_IDS[0], 300: _STUFF_IDS[-1]}
            for k in range(4 if i < 4 else 0):
                top, left = rng.randint(height // 4 * 3), rng.randint(width // 4 * 3)
                segments[top:top + height // 4, left:left + width // 4] = 1000 + 7 * k
                of_segment[1000 + 7 * k] = things[rng.choice([0, 11, 40, 79])]
            infos = []
            for segment, category in of_segment.items():
                rows, columns = np.nonzero(segments == segment)
                if len(rows):
                    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                    infos.append(dict(id=segment, category_id=category, area=len(rows), bbox=[int(x) for x in box],
                                      iscrowd=int(segment == 1021)))
            name = image['file_name'].replace('.jpg', '.png')
            colours = np.stack([segments % 256, segments // 256 % 256, segments // 256**2], 2).astype(np.uint8)
            Image.fromarray(colours).save(folder / name)
            annotations.append(dict(image_id=image['id'], file_name=name, segments_info=infos))
        (root / f'annotations/panoptic_{part}.json').write_text(json.dumps(dict(
            images=images, annotations=annotations, categories=categories)))


def make_cityscapes(root: Path) -> None:
    """Three images for training, two for validation, in folders of towns, with labels 0…18 and 255 for none."""
    rng = np.random.RandomState(4)
    for part, town, number in (('train', 'aachen', 2), ('train', 'ulm', 1), ('val', 'munster', 2)):
        for i in range(number):
            name = f'{town}_{i:06d}_000019'
            for kind in ('leftImg8bit', 'gtFine'):
                (root / kind / part / town).mkdir(parents=True, exist_ok=True)
            _picture(rng, (2048, 1024)).save(root / f'leftImg8bit/{part}/{town}/{name}_leftImg8bit.png')
            labels = rng.randint(0, 19, (8, 16)).astype(np.uint8)
            labels[0, :2] = 255, 18
            Image.fromarray(labels).resize((2048, 1024), Image.Resampling.NEAREST).save(
                root / f'gtFine/{part}/{town}/{name}_gtFine_labelTrainIds.png')


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
