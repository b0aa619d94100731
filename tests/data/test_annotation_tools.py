"""The same objects in LabelMe's, CVAT's and COCO's files are the same data set."""
import base64
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from annotation_files import as_coco, as_cvat, as_labelme, assert_same, polygons, read, scenes_of
from conftest import run_tool
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dwnet.data import coco, cvat, labelme
from dwnet.data.own import OwnData, read_own_data


@pytest.mark.parametrize('form, write', [(labelme, as_labelme), (cvat, as_cvat)])
def test_scenes_are_equal_to_coco(form, write, small_digits, tmp_path):
    scenes = scenes_of(small_digits)
    theirs = read(coco, as_coco(scenes, tmp_path / 'coco'))
    ours = read(form, write(scenes, tmp_path / 'ours'))
    for table in (ours, theirs):
        table.parts['all'] = [entry._replace(image=Path(entry.image).name) for entry in table.parts['all']]
    assert_same(ours, theirs)
    assert not ours.notes


@pytest.mark.parametrize('form', [labelme, cvat], ids=lambda form: form.NAME)
def test_polygons_are_equal_to_coco(form, tmp_path):
    polygons(tmp_path)
    assert_same(read(form, tmp_path / form.NAME), read(coco, tmp_path / 'coco'))


def scores(data: OwnData) -> list[float]:
    """Box AP and mask AP of predictions that are a few pixels off the truth, in every part."""
    found = []
    for part in ('train', 'val'):
        truth = COCO(data.parts[part]['ann_file'])
        predictions = []
        for each in truth.anns.values():
            off = zlib.crc32(Path(truth.imgs[each['image_id']]['file_name']).name.encode()) % 5
            mask = np.roll(coco_mask.decode(each['segmentation']), off, axis=1)
            left, *others = each['bbox']
            predictions.append(dict(
                image_id=each['image_id'], category_id=each['category_id'], score=1 / (1 + off),
                bbox=[left + off, *others], segmentation=coco_mask.encode(np.asfortranarray(mask))))
        for kind in ('bbox', 'segm'):
            evaluation = COCOeval(truth, truth.loadRes(predictions), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            found.append(evaluation.stats[0])
    return found


def test_scores_are_those_of_coco(small_digits, tmp_path):
    """What is written for the toolboxes has the same scores, whatever the form; the same images are held out."""
    found = []
    for form, write in ((coco, as_coco), (labelme, as_labelme), (cvat, as_cvat)):
        root = write(scenes_of(small_digits), tmp_path / form.NAME)
        data = read_own_data([root], 'detection', [form], tmp_path / 'work' / form.NAME)
        assert data.sizes == dict(train=20, val=4) and data.with_masks
        found.append(scores(data))
    assert found[0] == found[1] == found[2] and all(.2 < score < .95 for score in found[0])


@pytest.mark.parametrize('how, result', [
    pytest.param(['--check'], 'nothing was found that would stop this training', id='check'),
    pytest.param(['--epochs', '1'], 'report: ', id='train', marks=pytest.mark.long)])
def test_images_inside_of_annotation_files_train_a_segmentor(how, result, small_digits, tmp_path):
    """Images and label images that are written into the work dir pass the preflight, train and validate."""
    content = scenes_of(small_digits)
    root = as_labelme({**content, 'images': content['images'][:8]}, tmp_path / 'my')
    for path in root.glob('*.json'):
        image = path.with_suffix('.jpg')
        inside = base64.b64encode(image.read_bytes()).decode()
        path.write_text(json.dumps({**json.loads(path.read_text()), 'imageData': inside}))
        image.unlink()
    done = run_tool('tools/train.py', 'configs/segmentation/upernet_dwnet-nano_digits.py', '--data-root', root,
                    '--work-dir', tmp_path / 'work', *how)
    assert not done.returncode, done.stderr
    assert 'my: LabelMe; 10 classes (background, 0, 1' in done.stdout and result in done.stdout
    for folder, ending in (('images', 'jpeg'), ('labels', 'png')):
        assert len(list((tmp_path / 'work/data').glob(f'**/{folder}/**/*.{ending}'))) == 8


@pytest.mark.long
@pytest.mark.parametrize('form, write', [(labelme, as_labelme), (cvat, as_cvat)], ids=['labelme', 'cvat'])
def test_a_detector_is_trained(form, write, small_digits, tmp_path):
    config = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'
    root = write(scenes_of(small_digits), tmp_path / 'my')
    done = run_tool('tools/train.py', config, '--data-root', root, '--epochs', 1, '--work-dir', tmp_path / 'work')
    assert not done.returncode, done.stderr
    assert '10 classes (0, 1' in done.stdout and 'best box AP' in done.stdout
    assert (tmp_path / 'work/report.html').is_file()
