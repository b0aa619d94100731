"""--track: the objects of a video keep their identities, in the JSON lines and in the drawn video."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import read_config, run_tool
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from dwnet.apis import inferencer
from dwnet.deploy.inference import infer
from dwnet.errors import UserError
from dwnet.toolboxes import toolbox_of
from dwnet.toolboxes.mmdet.tracking import Tracker
from dwnet.toolboxes.mmrotate import MMRotate

pytest.importorskip('lap', reason='waits for what `make setup` installs')

CONFIGS = {
    'classification': 'configs/classification/dwnet-nano_digits.py',
    'detection': 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
    'segmentation': 'configs/segmentation/upernet_dwnet-nano_digits.py',
}
SIDE, FRAMES = 96, 16
Object = tuple[float, float, float]  # x and y of the upper left corner, score


def frame_of(*objects: Object, label: int = 3, seed: int = 0) -> DetDataSample:
    """Predictions with boxes of 20×20 pixels and their masks, in random order."""
    order = np.random.default_rng(seed).permutation(len(objects))
    rows = torch.tensor([objects[i] for i in order]).reshape(-1, 3)
    boxes = torch.cat([rows[:, :2], rows[:, :2] + 20], 1)
    masks = torch.zeros(len(rows), SIDE, SIDE, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().int().tolist()):
        mask[max(0, top):bottom, max(0, left):right] = True
    return DetDataSample(pred_instances=InstanceData(
        bboxes=boxes, scores=rows[:, 2], labels=torch.full((len(rows), ), label), masks=masks))


def rows_crossing(score: float = .9) -> list[list[Object]]:
    """Two objects of one class that pass each other, their boxes overlapping in the middle."""
    return [[(4. * i, 30., score), (76. - 4 * i, 38., score)] for i in range(FRAMES)]


def identities(frames: list[DetDataSample]) -> list[list[int]]:
    """The identity of each object of each frame, from left to right."""
    tracker = Tracker()
    for frame in frames:
        tracker.follow(frame)
    return [frame.pred_instances.instances_id[frame.pred_instances.bboxes[:, 0].argsort()].tolist()
            for frame in frames]


def test_objects_that_pass_each_other_keep_their_identities():
    found = identities([frame_of(*row, seed=i) for i, row in enumerate(rows_crossing())])
    first, last = found[0], found[-1]
    assert sorted(first) == [1, 2] and last == first[::-1] and all(sorted(row) == [1, 2] for row in found)


def test_an_object_that_is_hidden_keeps_its_identity_and_one_elsewhere_gets_its_own():
    """The left object is hidden for four frames; the right one leaves, and another comes where none was."""
    rows = [[*[(3. * i, 10., .9)] * (not 6 <= i < 10), *[(60., 60., .9)] * (i < 8), *[(20., 70., .9)] * (i > 11)]
            for i in range(FRAMES)]
    found = identities([frame_of(*row, seed=i) for i, row in enumerate(rows)])
    left, right = found[0]
    assert found[5] == [left, right] and found[6] == [right] and found[10] == [left]
    assert found[-1][1] == left and found[-1][0] not in (0, left, right)


def test_frames_without_objects():
    still = [(10., 10., .9), (60., 60., .9)]
    frames = [[], [], still, still, still, [], [], still]
    found = identities([frame_of(*row) for row in frames])
    assert found[0] == found[1] == found[5] == [] and sorted(found[2]) == [1, 2] and found[7] == found[2]


def test_low_scores_go_on_and_do_not_begin():
    """A score of 0.2 continues an identity, as ByteTrack is there for, and gives none to a new object."""
    frames = [frame_of((10., 10., .9 if i < 4 else .2), (60., 60., .2)) for i in range(8)]
    assert identities(frames) == [[1, 0]] * 8


def test_a_box_without_an_area_and_another_class():
    flat = frame_of((10., 10., .9), (50., 50., .9))
    flat.pred_instances.bboxes[1, 2] = flat.pred_instances.bboxes[1, 0]
    frames = [frame_of((10., 10., .9)), flat, frame_of((10., 10., .9), label=5)]
    tracker = Tracker()
    for frame in frames:
        tracker.follow(frame)
    seen = [frame.pred_instances.instances_id.tolist() for frame in frames]
    assert seen[0] == [1] and sorted(seen[1]) == [0, 1] and flat.pred_instances.instances_id[1] == 0
    assert seen[2] not in ([0], [1])  # an identity keeps its class


def test_the_memory_does_not_grow_with_the_video():
    tracker = Tracker()
    for _ in range(20):
        tracker.follow(frame_of((10., 10., .9), (60., 60., .9)))
    assert {len(track.bboxes) for track in tracker._tracker.tracks.values()} == {3}


@pytest.fixture(scope='module')
def detector():
    return inferencer(CONFIGS['detection'])


def write_clip(path: Path, frames: int = FRAMES) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 8, (SIDE, SIDE))
    for _ in range(frames):
        writer.write(np.full((SIDE, SIDE, 3), 128, np.uint8))
    writer.release()
    return path


def test_identities_are_written_and_drawn(detector, tmp_path, monkeypatch):
    """Each video begins anew; the drawn masks have the colours of the identities, before and behind the crossing."""
    samples = [frame_of(*row, (0., 76., .2), seed=i) for i, row in enumerate(rows_crossing())] * 2
    given = iter(samples)
    monkeypatch.setattr('dwnet.deploy.inference.predict', lambda _, images: [next(given) for _ in images])
    clips = [write_clip(tmp_path / name) for name in ('a.mp4', 'b.mp4')]
    assert infer(detector, clips, tmp_path / 'out', 3, track=True) == {}
    for k, name in enumerate('ab'):
        lines = [json.loads(line) for line in (tmp_path / f'out/videos/{name}.jsonl').read_text().splitlines()]
        assert len(lines) == FRAMES
        for line, sample in zip(lines, samples[FRAMES * k:]):
            instances = sample.pred_instances
            assert [o.get('track', 0) for o in line['objects']] == instances.instances_id.tolist()
            assert np.allclose([o['box'] for o in line['objects']], instances.bboxes)
            assert {o.get('track') for o in line['objects']} == {1, 2, None}
    video, colours = cv2.VideoCapture(str(tmp_path / 'out/videos/a.mp4')), {1: [], 2: []}
    for i, sample in enumerate(samples[:FRAMES]):
        picture = video.read()[1]
        factor = picture.shape[0] / SIDE
        assert abs(picture[round(86 * factor), round(10 * factor)].astype(int) - 128).max() < 12, 'no identity, drawn'
        if i in (0, 1, FRAMES - 2, FRAMES - 1):  # apart from each other
            instances = sample.pred_instances
            for identity, box in zip(instances.instances_id.tolist(), instances.bboxes.tolist()):
                if identity:
                    x, y = round((box[0] + 10) * factor), round((box[1] + 14) * factor)
                    colours[identity].append(picture[y - 4:y + 4, x - 4:x + 4].mean((0, 1)))
    apart = np.linalg.norm(np.mean(colours[1], 0) - np.mean(colours[2], 0))
    assert all(np.linalg.norm(np.std(colours[i], 0)) < apart / 4 for i in (1, 2)), colours


def test_without_the_option_nothing_is_followed(detector, tmp_path, monkeypatch):
    monkeypatch.setattr('dwnet.deploy.inference.predict', lambda _, images: [frame_of((1., 1., .9)) for _ in images])
    infer(detector, [write_clip(tmp_path / 'a.mp4', 2)], tmp_path / 'out')
    assert '"track"' not in (tmp_path / 'out/videos/a.jsonl').read_text()


def test_what_cannot_be_followed_is_refused(detector, tmp_path, monkeypatch):
    with pytest.raises(UserError, match='through the frames of videos, and these are none: .*photo.jpg'):
        infer(detector, [write_clip(tmp_path / 'a.mp4', 2), tmp_path / 'photo.jpg'], tmp_path / 'out', track=True)
    for task in ('classification', 'segmentation'):
        with pytest.raises(UserError, match='follows the boxes of a detector, and this model predicts none'):
            toolbox_of(read_config(CONFIGS[task])).tracker()
    with pytest.raises(UserError, match='follows upright boxes, and these are rotated'):
        MMRotate().tracker()
    panoptic = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=torch.zeros(1, 4, 4, dtype=torch.int64)))
    masks_alone = frame_of((1., 1., .9))
    masks_alone.pred_instances.bboxes[:] = 0  # as SOLO's
    for sample in (panoptic, masks_alone):
        with pytest.raises(UserError, match='predicts segments or masks alone'):
            Tracker().follow(sample)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install lap'):
        Tracker()


def test_the_command(tmp_path):
    """A classifier is refused."""
    config = CONFIGS['classification']
    torch.save(dict(state_dict=inferencer(config).model.state_dict()), tmp_path / 'w.pth')
    done = run_tool('tools/infer.py', write_clip(tmp_path / 'a.mp4', 2), '--config', config, '--checkpoint',
                    tmp_path / 'w.pth', '--out', tmp_path / 'out', '--device', 'cpu', '--track')
    assert done.returncode == 2 and '--track follows the boxes of a detector' in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'out/predictions.json').exists()
