"""YOLO and Pascal VOC against an independent reader and writer, where it is installed: pip install supervision."""
from pathlib import Path

import numpy as np
import pytest
from scenes import NAMES, content, make_scenes, write_picture

from dwnet.data import voc, yolo
from dwnet.data.files import Files

pytestmark = pytest.mark.long


@pytest.mark.parametrize('form', [yolo, voc])
def test_round_trip(form, tmp_path):
    sv = pytest.importorskip('supervision', reason='waits for supervision, which nothing else needs')
    scenes, found = [scene for scene in make_scenes(8) if scene.objects], {}
    for scene in scenes:
        write_picture(tmp_path / 'whole' / scene.stem, scene.size)
        boxes = [[*polygon.min(0), *polygon.max(0)] for _, polygon in scene.objects]
        found[str(tmp_path / 'whole' / f'{scene.stem}.jpg')] = sv.Detections(
            np.array(boxes, np.float32), class_id=np.array([NAMES.index(name) for name, _ in scene.objects]))
    data = sv.DetectionDataset(NAMES, list(found), found)
    images, labels = str(tmp_path / 'my/images'), str(tmp_path / 'my/labels')
    if form is yolo:
        data.as_yolo(images, labels, str(tmp_path / 'my/data.yaml'))
        again = sv.DetectionDataset.from_yolo(images, labels, str(tmp_path / 'my/data.yaml'))
    else:
        data.as_pascal_voc(images, labels)
        again = sv.DetectionDataset.from_pascal_voc(images, labels)
    ours = content(form.read(Files(tmp_path / 'my'), tmp_path / 'out'))
    theirs = {Path(path).stem: detections for path, _, detections in again}
    assert ours.keys() == theirs.keys() and len(ours) == 6
    for stem, (_, objects) in ours.items():
        assert [name for name, *_ in objects] == [again.classes[i] for i in theirs[stem].class_id]
        corners = [[*box[:2], *(box[:2] + box[2:])] for _, box, _ in objects]
        np.testing.assert_allclose(corners, theirs[stem].xyxy, atol=1e-3)
