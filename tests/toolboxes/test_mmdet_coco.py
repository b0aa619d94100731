"""mmdet's data set and metric on COCO files: mended annotations, labels by names, photographs that EXIF turns."""
import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_config, run_tool
from mmengine.registry import DATASETS
from PIL import Image
from pycocotools import mask as coco_mask

from dwnet.data import orientation
from dwnet.errors import UserError
from dwnet.toolboxes.checked import with_checks
from dwnet.toolboxes.mmdet.coco import CheckedCocoDataset, CheckedCocoMetric

read = functools.cache(read_config)
DETECTION = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'


def dataset_of(path: Path, root: Path, part: str = 'train', **changes) -> CheckedCocoDataset:
    cfg = copy.deepcopy(read(DETECTION)[f'{part}_dataloader'].dataset)
    cfg.update(data_root=str(root), ann_file=str(path), **changes)
    dataset = DATASETS.build(with_checks(cfg))
    assert isinstance(dataset, CheckedCocoDataset)
    return dataset


def perfect(dataset: CheckedCocoDataset, left_out: int | None = None) -> list[dict]:
    """Predictions that are the truth, less those of one label."""
    samples = []
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        truth = sample.gt_instances
        truth = truth[truth.labels != left_out] if left_out is not None else truth
        factor = torch.tensor([*sample.scale_factor] * 2)
        height, width = sample.ori_shape
        boxes = truth.bboxes.tensor / factor
        masks = truth.masks.resize((height, width)).to_tensor(torch.bool, 'cpu')
        found = dict(bboxes=boxes, scores=torch.ones(len(truth)), masks=masks, labels=truth.labels)
        samples.append(dict(img_id=sample.img_id, ori_shape=sample.ori_shape, img_path=sample.img_path,
                            pred_instances=found))
    return samples


def evaluate(path: Path, dataset: CheckedCocoDataset, samples: list[dict], **options) -> dict[str, float]:
    metric = CheckedCocoMetric(ann_file=str(path), **{'metric': ['bbox', 'segm'], **options})
    metric.dataset_meta = dataset.metainfo
    metric.process({}, samples)
    return metric.evaluate(len(dataset))


@pytest.fixture
def change(small_digits, tmp_path) -> Callable[..., Path]:
    """Writes the annotations of a part after a change."""

    def change(how: Callable[[dict], object], part: str = 'test') -> Path:
        content = json.loads((small_digits / f'annotations/{part}.json').read_text())
        how(content)
        path = tmp_path / f'{part}.json'
        path.write_text(json.dumps(content))
        return path

    return change


# --- What is mended or left out ----------------------------------------------------------------------------


def test_the_data_set_has_what_the_file_has(small_digits, change):
    whole, mended = (dataset_of(change(how, 'train'), small_digits) for how in (
        lambda content: None, lambda content: [[a.pop('bbox'), a.pop('area')] for a in content['annotations']]))
    assert len(whole) == len(mended) == 24
    for index in range(24):
        assert whole.get_data_info(index)['instances'] == mended.get_data_info(index)['instances'] != []
    assert sum(len(whole.get_data_info(i)['instances']) for i in range(24)) == len(
        json.loads((small_digits / 'annotations/train.json').read_text())['annotations'])


def test_a_file_without_objects_is_one_line(small_digits, change):
    with pytest.raises(UserError, match='train.json leaves no image'):
        dataset_of(change(lambda content: content.update(annotations=[]), 'train'), small_digits)


UNSOUND = dict(
    no_polygon=lambda annotations: annotations[0].update(segmentation=[]),
    no_segmentation=lambda annotations: annotations[0].pop('segmentation'),
    a_point=lambda annotations: annotations[0].update(segmentation=[[1, 2]]),
    no_image=lambda annotations: annotations[0].pop('image_id'),
    no_iscrowd=lambda annotations: [annotation.pop('iscrowd') for annotation in annotations],
    ids_as_text=lambda annotations: [a.update(id=f'x{a["id"]}', image_id=str(a['image_id'])) for a in annotations],
    ids_from_0=lambda annotations: [annotation.update(id=annotation['id'] - 1) for annotation in annotations],
    no_box=lambda annotations: [annotation.pop('bbox') for annotation in annotations])


@pytest.mark.parametrize('fault', UNSOUND)
def test_the_metric_reads_what_the_data_set_reads(fault, small_digits, change):
    path = change(lambda content: UNSOUND[fault](content['annotations']))
    dataset = dataset_of(path, small_digits, 'test')
    scores = evaluate(path, dataset, perfect(dataset))
    assert scores['coco/bbox_mAP'] == 1 and scores['coco/segm_mAP'] > .9, scores


# --- Labels ------------------------------------------------------------------------------------------------


def other_order(content: dict) -> None:
    content['categories'].reverse()


def other_ids(content: dict) -> None:
    """The order of the ids is neither that of the file nor that of the names."""
    new = {category['id']: 100 + category['id'] * 7 % 11 for category in content['categories']}
    for category in content['categories']:
        category['id'] = new[category['id']]
    for annotation in content['annotations']:
        annotation['category_id'] = new[annotation['category_id']]


def text_ids(content: dict) -> None:
    for category in content['categories']:
        category['id'] = f"n{category['id']}"
    for annotation in content['annotations']:
        annotation['category_id'] = f"n{annotation['category_id']}"


def fewer(content: dict) -> None:
    """The third class is not there."""
    other_order(content)
    gone = next(category for category in content['categories'] if category['name'] == '2')
    content['categories'].remove(gone)
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] != gone['id']]


def named(content: dict, dataset: CheckedCocoDataset) -> list[tuple]:
    """Image, class and box of each object, as the file and as the data set have them."""
    names = {category['id']: category['name'] for category in content['categories']}
    of_file = [(a['image_id'], names[a['category_id']], *a['bbox'][:2]) for a in content['annotations']]
    of_data = [(info['img_id'], dataset.metainfo['classes'][instance['bbox_label']], *instance['bbox'][:2])
               for info in map(dataset.get_data_info, range(len(dataset))) for instance in info['instances']]
    return [sorted(of_file), sorted(of_data)]


@pytest.mark.parametrize('how', [other_order, other_ids, text_ids, fewer])
def test_labels_follow_the_names(how, small_digits, change, tmp_path):
    """In the data set, in the scores of each class, and in the predictions that are written."""
    path = change(how)
    content = json.loads(path.read_text())
    dataset = dataset_of(path, small_digits, 'test')
    of_file, of_data = named(content, dataset)
    assert of_file == of_data != []
    used = {name for _, name, *_ in of_file}
    for missed in (None, '7'):
        label = None if missed is None else dataset.metainfo['classes'].index(missed)
        scores = evaluate(path, dataset, perfect(dataset, label), metric='bbox', classwise=True,
                          outfile_prefix=str(tmp_path / 'out'))
        for name in dataset.metainfo['classes']:
            expected = np.nan if name not in used else float(name != missed)
            assert np.array_equal(scores[f'coco/{name}_precision'], expected, equal_nan=True), name
        assert scores['coco/bbox_mAP'] == pytest.approx((len(used) - (missed is not None)) / len(used), abs=1e-3)
    names = {category['id']: category['name'] for category in content['categories']}
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert sorted((entry['image_id'], names[entry['category_id']]) for entry in written) == sorted(
        (image, name) for image, name, *_ in of_file if name != '7')


def test_a_class_that_a_part_lacks_may_be_predicted(small_digits, change):
    """It is a false detection of a class without objects, which has no score."""
    path = change(fewer)
    dataset = dataset_of(path, small_digits, 'test')
    samples = perfect(dataset)
    found = samples[0]['pred_instances']
    found['labels'] = torch.full_like(found['labels'], 2)
    assert 0 < evaluate(path, dataset, samples, metric='bbox')['coco/bbox_mAP'] < 1


# --- Orientation ---------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 96, 64
RED, BLUE = (250, 20, 20), (20, 20, 250)


def photograph(folder: Path, tag: int, kind: str, upright: bool) -> Path:
    """A photograph with a red and a blue rectangle, and its annotation, of the pixels in the file or as a viewer sees.
    """
    exif = Image.Exif()
    exif[0x112] = tag
    pixels, annotations = np.full((HEIGHT, WIDTH, 3), 128, np.uint8), []
    width, height = (HEIGHT, WIDTH) if upright and tag >= 5 else (WIDTH, HEIGHT)
    for number, (colour, (x, y, w, h)) in enumerate(((RED, (8, 8, 24, 16)), (BLUE, (48, 32, 32, 24)))):
        pixels[y:y + h, x:x + w] = colour
        mask = (pixels == colour).all(-1).astype(np.uint8)
        mask = orientation.turn_pixels(mask, tag) if upright else mask
        rle = coco_mask.encode(np.asfortranarray(mask))
        box = coco_mask.toBbox(rle).tolist()
        left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
        polygon = [[left, top, right, top, right, bottom, left, bottom]]
        annotations.append(dict(
            id=number + 1, image_id=1, category_id=number + 1, bbox=box, area=w * h, iscrowd=0,
            segmentation=polygon if number else {**rle, 'counts': rle['counts'].decode()}))
    Image.fromarray(pixels).save(folder / f'a.{kind}', exif=exif, quality=95)
    path = folder / 'all.json'
    path.write_text(json.dumps(dict(
        images=[dict(id=1, file_name=f'a.{kind}', width=width, height=height)], annotations=annotations,
        categories=[dict(id=1, name='red'), dict(id=2, name='blue')])))
    return path


@pytest.mark.parametrize('kind, tag, upright', [
    *(('jpg', tag, upright) for tag in range(5, 9) for upright in (False, True)),
    ('jpg', 1, False), ('jpg', 3, True), ('png', 6, False), ('webp', 8, False)])
def test_boxes_and_masks_lie_on_the_objects(kind, tag, upright, tmp_path):
    """Whichever pixels the annotation tool saw; the predictions that are written fit the annotations."""
    path = photograph(tmp_path, tag, kind, upright)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'scale_factor'))]
    dataset = dataset_of(path, tmp_path, data_prefix=dict(img=''), pipeline=pipeline,
                         metainfo=dict(classes=('red', 'blue')))
    sample = dataset[0]
    image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1].astype(int)
    truth = sample['data_samples'].gt_instances
    for colour, box, mask in zip((RED, BLUE), truth.bboxes.tensor.int().tolist(), truth.masks.masks):
        near = np.abs(image - colour).max(-1) < 60
        assert mask.sum() > 300 and (near != mask.astype(bool)).mean() < .01
        rows, columns = mask.nonzero()
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    samples = perfect_of_one(sample['data_samples'])
    before = copy.deepcopy(samples)
    scores = evaluate(path, dataset, samples, outfile_prefix=str(tmp_path / 'out'))
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 1
    for key, value in before[0]['pred_instances'].items():  # other metrics read the same samples
        assert torch.equal(value, samples[0]['pred_instances'][key])
    written = {entry['category_id']: entry['bbox'] for entry in json.loads((tmp_path / 'out.bbox.json').read_text())}
    assert written == {entry['category_id']: entry['bbox'] for entry in json.loads(path.read_text())['annotations']}


def perfect_of_one(sample) -> list[dict]:
    truth = sample.gt_instances
    return [dict(img_id=sample.img_id, ori_shape=sample.ori_shape, img_path=sample.img_path, pred_instances=dict(
        bboxes=truth.bboxes.tensor, labels=truth.labels, scores=torch.ones(2),
        masks=truth.masks.to_tensor(torch.bool, 'cpu')))]


# --- All of it -----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_training_on_what_tools_write(small_digits, tmp_path):
    """Neither boxes nor areas, photographs on their sides, and a validation set that knows fewer classes."""
    root, work = tmp_path / 'my', tmp_path / 'work'
    for part, number in (('train', 6), ('val', 2)):
        content = json.loads((small_digits / 'annotations/train.json').read_text())
        content['images'] = content['images'][:number] if part == 'train' else content['images'][6:6 + number]
        ids = {image['id'] for image in content['images']}
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] in ids]
        (root / part).mkdir(parents=True)
        for image in content['images']:
            exif = Image.Exif()
            exif[0x112] = 6
            source = Image.open(small_digits / 'scenes/train' / image['file_name']).convert('RGB')
            wide = Image.new('RGB', (image['width'] + 16, image['height']))  # no square
            wide.paste(source)
            wide.save(root / part / image['file_name'], exif=exif, quality=95)
            image['width'] += 16
        for annotation in content['annotations']:
            mask = np.pad(coco_mask.decode(annotation['segmentation']), ((0, 0), (0, 16)))
            rle = coco_mask.encode(np.asfortranarray(mask))
            annotation['segmentation'] = {**rle, 'counts': rle['counts'].decode()}
            del annotation['bbox'], annotation['area'], annotation['iscrowd']
        if part == 'val':
            fewer(content)
        (root / f'{part}.json').write_text(json.dumps(content))
    done = run_tool('tools/train.py', DETECTION, '--data-root', root, '--work-dir', work, '--epochs', 1)
    assert done.returncode == 0, done.stderr
    log = ''.join(path.read_text() for path in work.glob('*/*.log'))
    assert 'EXIF turns 6 of 6 images' in log
    assert 'box computed from the mask' in log and 'coco/bbox_mAP' in log
