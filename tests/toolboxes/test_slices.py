"""--slice: each object of a large image is found once, where it is; the options, and what the commands write."""
import json
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import read_config, run_tool
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as coco_mask
from torch import nn

from dwnet.apis import inferencer, init_model
from dwnet.commands.options.running import check_overlap, enable_slices
from dwnet.deploy.inference import predict
from dwnet.errors import UserError
from dwnet.toolboxes.graphs import image_channels

CONFIGS = {
    'classification': 'configs/classification/dwnet-nano_digits.py',
    'detection': 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
    'segmentation': 'configs/segmentation/upernet_dwnet-nano_digits.py',
}


def on(digits: Path) -> list[str]:
    return [f'test_dataloader.dataset.data_root={digits}', f'test_evaluator.ann_file={digits}/annotations/test.json']


@pytest.mark.parametrize('width, height, size, overlap, number', [
    (3000, 2000, 640, .2, 6 * 4), (641, 640, 640, .2, 2), (640, 640, 640, .2, 0), (100, 90, 640, .2, 0),
    (1000, 5, 64, .5, 31), (257, 300, 100, 0., 3 * 3), (70, 64, 64, .9, 2)])
def test_tiles_cover_the_image(width, height, size, overlap, number):
    from dwnet.toolboxes.mmdet.slices import tiles_of
    tiles, seen = tiles_of(width, height, size, overlap), np.zeros((height, width), int)
    for left, top, right, bottom in tiles:
        assert (right - left, bottom - top) == (min(size, width), min(size, height))
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        seen[top:bottom, left:right] += 1
    assert len(tiles) == len(set(tiles)) == number and (seen.all() or not tiles)
    for places in ({tile.left for tile in tiles}, {tile.top for tile in tiles}):
        steps = np.diff(sorted(places))
        assert (steps <= round(size * (1 - overlap))).all()


@pytest.mark.parametrize('place', ['inside', 'corners', 'everywhere', 'nowhere'])
def test_run_lengths_of_a_cut_out_are_those_of_the_mask(place):
    from dwnet.toolboxes.mmdet.slices import CutOut, Tile
    whole = np.zeros((37, 53), bool)
    tile = Tile(10, 5, 53, 37)
    part = whole[tile.top:, tile.left:]
    if place == 'inside':
        part[3:9, 4:20] = np.random.default_rng(0).random((6, 16)) > .5
    elif place == 'corners':
        part[0, 0] = part[-1, -1] = True
    elif place == 'everywhere':
        tile = Tile(0, 0, 53, 37)
        part = whole
        whole[:] = True
    cut = CutOut.of(torch.from_numpy(part), tile)
    expected = coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert cut.run_lengths(53, 37) == expected
    if place == 'inside':
        assert cut.pixels.base is None and cut.box == (14, 8, 30, 14)


def found(box, score, label, cut):
    from dwnet.toolboxes.mmdet.slices import Found
    return Found(torch.tensor([box]).float(), *(torch.tensor([value]) for value in (score, label, cut)), None)


@pytest.mark.parametrize('first, second, left', [
    (([0, 0, 10, 10], .5, 1, False), ([0, 0, 10, 9], .6, 1, False), [.6]),  # the better one
    (([0, 0, 10, 10], .5, 1, False), ([0, 0, 10, 9], .6, 2, False), [.6, .5]),  # another class
    (([0, 0, 10, 10], .5, 1, False), ([0, 0, 10, 9], .6, 1, True), [.5]),  # not cut, though it scores less
    (([0, 0, 10, 10], .5, 1, False), ([0, 0, 10, 3], .6, 1, True), [.5]),  # a piece
    (([0, 0, 10, 10], .5, 1, False), ([0, 0, 10, 3], .6, 1, False), [.6, .5]),  # a small object before a large one
    (([0, 0, 10, 10], .5, 1, False), ([0, 0, 10, 3], .6, 2, True), [.6, .5]),  # in another class
    (([0, 0, 10, 10], .5, 1, True), ([0, 9, 10, 12], .6, 1, True), [.6, .5])])  # two neighbours
def test_each_object_remains_once(first, second, left):
    from dwnet.toolboxes.mmdet.slices import merged
    parts = [found(*first), found(*second)]
    assert merged(parts).scores.tolist() == pytest.approx(left)
    assert merged(parts[:1]) is parts[0]


class FindsSquares(nn.Module):
    """A detector: each connected region of one grey value above 0 is an object of the class of its value."""

    def __init__(self, masks: bool = True, boxes: bool = True) -> None:
        super().__init__()
        self.masks, self.boxes, self.batches = masks, boxes, []

    def test_step(self, data: dict) -> list:
        self.batches.append([tuple(image.shape[1:]) for image in data['inputs']])
        for image, sample in zip(data['inputs'], data['data_samples']):
            boxes, labels, masks = [], [], []
            for label in range(1, 4):
                number, regions, stats, _ = cv2.connectedComponentsWithStats((image[0].numpy() == label).astype('u1'))
                for i in range(1, number):
                    left, top, width, height, _ = stats[i]
                    boxes.append([left, top, left + width, top + height])
                    labels.append(label)
                    masks.append(torch.from_numpy(regions == i))
            found = sample.pred_instances = InstanceData()
            found.bboxes = torch.tensor(boxes, dtype=torch.float).reshape(-1, 4) * self.boxes
            found.labels, found.scores = torch.tensor(labels, dtype=torch.long), torch.ones(len(labels))
            if self.masks:
                found.masks = torch.stack(masks) if masks else torch.zeros(0, *image.shape[1:]).bool()
        return data['data_samples']


def predict_squares(detector, image, size, batch_size):
    from dwnet.toolboxes.mmdet.slices import KeepImage, SlicedDetector
    steps = [dict(type='PackDetInputs', meta_keys=('ori_shape', ))]
    results = KeepImage(steps)(dict(img=image, ori_shape=image.shape[:2]))
    sliced = SlicedDetector(detector, steps, size, .25, batch_size)
    return sliced.test_step({key: [value] for key, value in results.items()})[0].pred_instances


@pytest.mark.parametrize('batch_size', [1, 4])
@pytest.mark.parametrize('kind', [{}, dict(masks=False), dict(boxes=False)], ids=['both', 'boxes', 'masks'])
def test_objects_in_tiles_are_found_where_they_are(kind, batch_size):
    read_config(CONFIGS['detection'])
    rng, image = np.random.default_rng(0), np.zeros((190, 240, 3), np.uint8)
    squares, free = {}, np.ones(image.shape[:2], bool)
    squares[0, 150, 240, 190] = 1  # larger than any tile: only the whole image shows it
    while len(squares) < 25:
        width, height = rng.integers(3, 15, 2)  # smaller than the overlap
        left, top = int(rng.integers(240 - width)), int(rng.integers(150 - height))
        if free[max(0, top - 2):top + height + 2, max(0, left - 2):left + width + 2].all():
            squares[left, top, left + int(width), top + int(height)] = int(rng.integers(1, 4))
            free[top:top + height, left:left + width] = False
    for (left, top, right, bottom), label in squares.items():
        image[top:bottom, left:right] = label
    detector = FindsSquares(**kind)
    instances = predict_squares(detector, image, 64, batch_size)
    boxes = [tuple(map(int, box)) for box in instances.bboxes.tolist()]
    assert dict(zip(boxes, instances.labels.tolist())) == squares and len(boxes) == len(squares)
    assert detector.batches[0] == [(190, 240)] and {shape for b in detector.batches[1:] for shape in b} == {(64, 64)}
    assert max(map(len, detector.batches)) == batch_size and sum(map(len, detector.batches)) == 1 + 4 * 5
    if detector.masks:
        for box, mask in zip(boxes, coco_mask.decode(instances.masks).transpose(2, 0, 1)):
            left, top, right, bottom = box
            assert mask.sum() == mask[top:bottom, left:right].sum() == (right - left) * (bottom - top)
    else:
        assert 'masks' not in instances


def test_an_image_without_objects():
    read_config(CONFIGS['detection'])
    instances = predict_squares(FindsSquares(), np.zeros((90, 100, 3), np.uint8), 64, 1)
    assert len(instances) == 0 and instances.masks == []


def test_the_channels_are_those_of_the_detector():
    """Inference leaves out images of other channels."""
    from dwnet.toolboxes.mmdet.slices import SlicedDetector
    detector = FindsSquares()
    detector.backbone = nn.Conv2d(5, 1, 1)
    assert image_channels(SlicedDetector(detector, [], 64, .25)) == image_channels(detector) == 5


def test_a_model_without_objects_is_refused():
    read_config(CONFIGS['detection'])
    detector = FindsSquares()
    detector.test_step = lambda data: data['data_samples']
    with pytest.raises(UserError, match='--slice joins objects, and FindsSquares predicts none'):
        predict_squares(detector, np.zeros((90, 100, 3), np.uint8), 64, 1)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp('weights') / 'detection.pth'
    torch.manual_seed(1)
    torch.save(dict(state_dict=init_model(read_config(CONFIGS['detection'])).state_dict()), file)
    return file


@pytest.mark.long
def test_test_and_infer_predict_the_same(weights, small_digits, tmp_path):
    """With scores, pictures and a file of predictions; the masks are those of the whole images."""
    few = 'model.test_cfg.rcnn.max_per_img=2'
    options = [*on(small_digits), few, 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
               'test_dataloader.dataset.indices=2']
    slicing = ['--slice', 96, '--overlap', .5]
    done = run_tool('tools/test.py', CONFIGS['detection'], weights, '--work-dir', tmp_path / 'work', *slicing,
                    '--out', tmp_path / 'out.pkl', '--show-dir', tmp_path / 'shown', '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / 'out.pkl', 'rb') as stream:
        results = pickle.load(stream)
    photos = sorted((small_digits / 'scenes/test').glob('*.jpg'))[:2]
    assert len(results) == len(photos) == len(list((tmp_path / 'shown').glob('*.jpg')))
    done = run_tool('tools/infer.py', *photos, '--config', CONFIGS['detection'], '--checkpoint', weights, '--out',
                    tmp_path / 'infer', '--device', 'cpu', '--batch-size', 2, *slicing, '--cfg-options', few)
    assert done.returncode == 0, done.stderr
    entries = json.loads((tmp_path / 'infer/predictions.json').read_text())['predictions']
    for result, entry in zip(results, entries):
        predicted = result['pred_instances']
        assert len(predicted['scores']) == len(entry['objects']) > 3
        assert np.allclose([o['box'] for o in entry['objects']], predicted['bboxes'], atol=.02)
        assert [o['mask']['counts'] for o in entry['objects']] == [m['counts'].decode() for m in predicted['masks']]
        assert {tuple(o['mask']['size']) for o in entry['objects']} == {(128, 128)}
        assert Image.open(tmp_path / 'infer' / entry['picture']).size == (256, 256)


def test_pictures_of_run_lengths_are_those_of_masks(monkeypatch):
    from dwnet.inspect.samples import make_visualizer
    from dwnet.toolboxes.mmdet import slices
    cfg = read_config(CONFIGS['detection'])
    masks = np.zeros((5, 60, 80), np.uint8)
    for i, mask in enumerate(masks):
        mask[10 * i:10 * i + 9, 15 * i:15 * i + 14] = 1
    boxes = torch.tensor([[15 * i, 10 * i, 15 * i + 14, 10 * i + 9] for i in range(5)]).float()
    instances = InstanceData(bboxes=boxes, labels=torch.arange(5), scores=torch.ones(5), masks=torch.from_numpy(masks))
    meta = dict(classes=list('abcde'), palette=[(50 * i, 0, 0) for i in range(5)])
    image = np.full((60, 80, 3), 200, np.uint8)

    def drawn(name) -> np.ndarray:
        np.random.seed(0)  # mmdet jitters the colours of masks
        return make_visualizer(cfg, meta, name)._draw_instances(image, instances, meta['classes'], meta['palette'])

    expected = drawn('masks')
    enable_slices(cfg, 64, .2)
    instances.masks = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    assert (drawn('runs') == expected).all() and (expected != image).any()
    monkeypatch.setattr(slices, '_AT_A_TIME', 2)
    touched, all_touched = ((drawing != image).any(2) for drawing in (drawn('runs, two at a time'), expected))
    assert (touched == all_touched).mean() > .97 and all_touched.mean() > .2
    none = instances[torch.zeros(5, dtype=torch.bool)]
    visualizer = make_visualizer(cfg, meta, 'none')
    assert (visualizer._draw_instances(image, none, meta['classes'], meta['palette']) == image).all()


def test_a_segmentor_gets_a_sliding_window():
    photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)

    def labels(size: int | None) -> torch.Tensor:
        cfg = read_config(CONFIGS['segmentation'])
        if size:
            enable_slices(cfg, size, None)
        torch.manual_seed(1)
        return predict(inferencer(cfg), [photo])[0].pred_sem_seg.data

    cfg = read_config(CONFIGS['segmentation'])
    enable_slices(cfg, 96, None)
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(96, 96), stride=(77, 77))
    whole = labels(None)
    assert torch.equal(labels(128), whole) and 0 < (labels(64) != whole).float().mean() < 1


@pytest.mark.parametrize('task, given, message', [
    ('classification', ['--slice', '64'], '--slice is for detectors and segmentors; a classifier has one answer'),
    ('detection', ['--slice', '8'], '--slice 8: the side of a tile in pixels, 32 at least, such as 640'),
    ('detection', ['--overlap', '.3'], '--overlap is for the tiles of --slice N: name their size, or leave it out'),
    ('detection', ['--slice', '64', '--overlap', '1'], '--overlap 1.0: a fraction of a tile, 0 to 0.9, such as 0.2')])
@pytest.mark.parametrize('tool', ['test', 'infer'])
def test_mistakes_end_in_one_line(tool, task, given, message, weights, small_digits, tmp_path):
    own = {'test': [CONFIGS[task], weights, '--work-dir', tmp_path, '--cfg-options', *on(small_digits)],
           'infer': [small_digits / 'scenes/test/00000.jpg', '--config', CONFIGS[task], '--checkpoint', weights]}
    done = run_tool(f'tools/{tool}.py', *own[tool], *given)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f'error: {message}')


def test_slices_and_mirror_images_conflict(weights, small_digits, tmp_path):
    done = run_tool('tools/test.py', CONFIGS['detection'], weights, '--work-dir', tmp_path, '--tta', '--slice', '64',
                    '--cfg-options', *on(small_digits))
    assert 'error: --slice cannot be combined with --tta; choose one' in done.stderr


def test_a_reader_of_another_kind_is_refused():
    cfg = read_config(CONFIGS['detection'])
    cfg.test_dataloader.dataset.pipeline[0].type = 'LoadMultiChannelImageFromFiles'
    check_overlap(cfg, .5, 64)
    with pytest.raises(UserError, match=re.escape('whose pipeline begins with LoadImageFromFile')):
        enable_slices(cfg, 64, .5)
    cfg.pop('test_dataloader')
    with pytest.raises(UserError, match='whose pipeline begins with'):
        enable_slices(cfg, 64, .5)
