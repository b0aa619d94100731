"""Writes annotations of objects as LabelMe, CVAT and COCO have them, and compares what is read of them."""
import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from dwnet.data.files import Files
from dwnet.data.table import Table

SIZE = 120, 80
# Outlines of two classes; the second cat has two parts
CAT, DOG = [10, 10, 40, 12, 35, 45.5, 12, 40], [60.5, 20, 100, 20, 100, 70, 60.5, 70]
FAR, NEAR = [5, 50, 25, 50, 15, 75], [30, 60, 50, 60, 40, 78]


def pairs(numbers: list[float]) -> list[list[float]]:
    return np.reshape(numbers, (-1, 2)).tolist()


def picture(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new('RGB', size, (len(path.stem), 100, hash(path.stem) % 256)).save(path, exif=exif)
    return path


def png(mask: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(content, 'PNG')
    return base64.b64encode(content.getvalue()).decode()


def rows_first(mask: np.ndarray) -> str:
    """The run lengths of CVAT."""
    flat = mask.ravel().astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, flat.size]).tolist()
    return ', '.join(map(str, [0, *lengths] if flat[0] else lengths))


def shape(label: str, points: list, kind: str = 'polygon', **more) -> dict:
    return dict(label=label, points=points, group_id=None, shape_type=kind, flags={}, **more)


def labelme_file(path: Path, *shapes: dict, **changes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(
        version='5.4.1', flags={}, shapes=shapes, imagePath=f'{path.stem}.jpg', imageData=None, imageHeight=SIZE[1],
        imageWidth=SIZE[0]) | changes))
    return path


def element(tag: str, **attributes) -> str:
    written = ' '.join(f'{key}="{value}"' for key, value in attributes.items())
    return f'<{tag} {written}></{tag}>'


def cvat_image(name: str, *shapes: str, size: tuple[int, int] = SIZE, **more) -> str:
    image = element('image', id=0, name=name, width=size[0], height=size[1], **more)
    return image.replace('><', f">{''.join(shapes)}<")


def cvat_file(path: Path, *images: str, labels: tuple[str, ...] = ('dog', 'cat', 'bird'), meta: str = '') -> Path:
    names = ''.join(f'<label><name>{name}</name><attributes/></label>' for name in labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task>{meta}'
                    f'<labels>{names}</labels></task></meta>{"".join(images)}</annotations>')
    return path


def cvat_polygon(label: str, numbers: list[float], **more) -> str:
    return element('polygon', label=label, points=';'.join(f'{x},{y}' for x, y in pairs(numbers)), **more)


def cvat_box(label: str, left: float, top: float, right: float, bottom: float, **more) -> str:
    return element('box', label=label, xtl=left, ytl=top, xbr=right, ybr=bottom, **more)


def cvat_mask(label: str, rle: str, left: int, top: int, width: int, height: int) -> str:
    return element('mask', label=label, rle=rle, left=left, top=top, width=width, height=height)


def read(form, root: Path) -> Table:
    return form.read(Files(root), root.parent / 'written')


def pixels(segmentation: list | dict, size: tuple[int, int]) -> np.ndarray:
    rles = coco_mask.frPyObjects(segmentation, *size[::-1]) if isinstance(segmentation, list) else [segmentation]
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def box_of(each: dict) -> list[float]:
    if 'bbox' in each:
        return each['bbox']
    if isinstance(each['segmentation'], dict):
        return coco_mask.toBbox(each['segmentation']).tolist()
    points = np.reshape(sum(each['segmentation'], []), (-1, 2))
    return [*points.min(0).tolist(), *np.ptp(points, 0).tolist()]


def assert_same(ours: Table, theirs: Table) -> None:
    """Equal classes, images, boxes and masks."""
    assert ours.classes == theirs.classes and ours.parts.keys() == theirs.parts.keys()
    for part, entries in theirs.parts.items():
        entries, others = ({entry.image: entry for entry in its} for its in (entries, ours.parts[part]))
        assert entries.keys() == others.keys()
        for image, entry in entries.items():
            assert others[image].size == entry.size
            assert len(others[image].objects) == len(entry.objects) > 0
            for one, other in zip(others[image].objects, entry.objects):
                assert one['label'] == other['label']
                np.testing.assert_allclose(box_of(one), box_of(other), atol=.5)
                np.testing.assert_array_equal(*(pixels(each['segmentation'], entry.size) for each in (one, other)))


# --- Whole data sets ------------------------------------------------------------------------------------


def scenes_of(digits: Path) -> dict:
    """The training scenes of the digits in COCO's form, with masks, and ``root``, the folder of the images."""
    content = json.loads((digits / 'annotations/train.json').read_text())
    return {**content, 'root': digits / 'scenes/train'}


def objects_in(content: dict, image: dict) -> list[tuple[str, np.ndarray]]:
    """The name of the class and the pixels of each object."""
    names = {category['id']: category['name'] for category in content['categories']}
    return [(names[each['category_id']], coco_mask.decode(each['segmentation']).astype(bool))
            for each in content['annotations'] if each['image_id'] == image['id']]


def window(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and the columns that a mask needs."""
    return tuple(slice(int(found[0]), int(found[-1]) + 1) for found in map(np.flatnonzero, (mask.any(1), mask.any(0))))


def as_labelme(content: dict, root: Path) -> Path:
    for image in content['images']:
        shapes = []
        for label, mask in objects_in(content, image):
            rows, columns = window(mask)
            corners = [[columns.start, rows.start], [columns.stop - 1, rows.stop - 1]]
            shapes.append(shape(label, corners, 'mask', mask=png(mask[rows, columns])))
        labelme_file((root / image['file_name']).with_suffix('.json'), *shapes, imageWidth=image['width'],
                     imageHeight=image['height'])
        shutil.copy(content['root'] / image['file_name'], root)
    return root


def as_cvat(content: dict, root: Path) -> Path:
    shutil.copytree(content['root'], root / 'images')
    images = []
    for image in content['images']:
        shapes = []
        for label, mask in objects_in(content, image):
            rows, columns = window(mask)
            shapes.append(cvat_mask(label, rows_first(mask[rows, columns]), columns.start, rows.start,
                                    columns.stop - columns.start, rows.stop - rows.start))
        images.append(cvat_image(image['file_name'], *shapes, size=(image['width'], image['height'])))
    cvat_file(root / 'annotations.xml', *images, labels=tuple('0123456789'))
    return root


def as_coco(content: dict, root: Path) -> Path:
    shutil.copytree(content['root'], root)
    (root / 'all.json').write_text(json.dumps({key: content[key] for key in ('images', 'annotations', 'categories')}))
    return root


def polygons(root: Path) -> None:
    """Three images with polygons in COCO's, LabelMe's and CVAT's form."""
    objects = [('a.jpg', 'cat', [CAT]), ('a.jpg', 'dog', [DOG]), ('b.jpg', 'cat', [FAR, NEAR]), ('c.jpg', 'dog', [DOG])]
    names = ['a.jpg', 'b.jpg', 'c.jpg']
    content = dict(images=[dict(id=name, file_name=name, width=SIZE[0], height=SIZE[1]) for name in names],
                   categories=[dict(id=1, name='cat'), dict(id=2, name='dog')], annotations=[])
    for number, (name, label, outlines) in enumerate(objects, 1):
        content['annotations'].append(dict(
            id=number, image_id=name, category_id=1 + (label == 'dog'), segmentation=outlines, iscrowd=0, area=1.,
            bbox=box_of(dict(segmentation=outlines))))
    images = []
    for name in names:
        for folder in ('coco', 'labelme', 'cvat'):
            picture(root / folder / name)
        drawn = [(label, outline, number) for number, (image, label, outlines) in enumerate(objects) if image == name
                 for outline in outlines]
        labelme_file(root / 'labelme' / f'{name[0]}.json', *(
            {**shape(label, pairs(outline)), 'group_id': group} for label, outline, group in drawn))
        images.append(cvat_image(name, *(
            cvat_polygon(label, outline, group_id=group) for label, outline, group in drawn)))
    (root / 'coco/all.json').write_text(json.dumps(content))
    cvat_file(root / 'cvat/annotations.xml', *images, labels=('cat', 'dog'))
