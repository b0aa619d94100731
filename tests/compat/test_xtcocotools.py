"""The stand-in for xtcocotools: object keypoint similarity and average precision against figures worked out by hand."""
import copy
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python

from dwnet.compat import stand_ins
from dwnet.compat.xtcocotools import mask
from dwnet.compat.xtcocotools.coco import COCO
from dwnet.compat.xtcocotools.cocoeval import COCOeval

SIGMAS = (.1, .2)
BOX = (10., 10., 40., 50.)
AREA = 1200.
HANDS = dict(foot_kpts=[1., 1., 2.], face_kpts=[2., 2., 2.], lefthand_kpts=[3., 3., 2.], righthand_kpts=[4., 4., 0.])


def truth(*annotations: dict, images: int = 1) -> COCO:
    """Annotations of images 1, 2, …, with crowd indices 0.1, 0.2, …"""
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=i + 1, crowdIndex=(i + 1) / 10) for i in range(images)], categories=[dict(id=1, name='person')],
        annotations=[dict(id=i + 1, image_id=1, category_id=1, bbox=list(BOX), area=AREA,
                          keypoints=[20., 20., 2., 40., 50., 1.]) | annotation
                     for i, annotation in enumerate(annotations)])
    coco.createIndex()
    return coco


def moved(*points: float, **more) -> dict:
    """A prediction of the keypoints of :func:`truth`, moved by x, y, …"""
    (x, y), (u, v) = points[:2], points[2:]
    return dict(image_id=1, category_id=1, score=.9, keypoints=[20. + x, 20. + y, .8, 40. + u, 50. + v, .7]) | more


def scored(coco: COCO, *predictions: dict, kind: str = 'keypoints', sigmas: tuple = SIGMAS, **more) -> COCOeval:
    evaluation = COCOeval(coco, coco.loadRes(list(predictions)), kind, np.array(sigmas), **more)
    evaluation.params.useSegm = None  # as mmpose says
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def similarity(distance: float, sigma: float, area: float) -> float:
    return math.exp(-distance**2 / (2 * area * (2 * sigma)**2))


@pytest.mark.parametrize('use_area, area', [(True, AREA), (False, .53 * BOX[2] * BOX[3])])
def test_similarity(use_area, area):
    evaluation = scored(truth({}), moved(3., 4., 0., 10.), use_area=use_area)
    expected = (similarity(5., .1, area) + similarity(10., .2, area)) / 2
    assert evaluation.ious[1, 1] == pytest.approx(np.array([[expected]]))


def test_only_labelled_keypoints_count():
    coco = truth(dict(keypoints=[20., 20., 2., 0., 0., 0.]))
    assert scored(coco, moved(3., 4., 99., 99.)).ious[1, 1].item() == pytest.approx(similarity(5., .1, AREA))


def test_average_precision():
    """The similarity of 0.72 is above 5 of the 10 thresholds, so half of them find the person."""
    distance = math.sqrt(-math.log(.72) * 2 * AREA * .04)
    evaluation = scored(truth({}), moved(distance, 0., 0., distance), sigmas=(.1, .1))
    assert evaluation.ious[1, 1].item() == pytest.approx(.72)
    # AP, AP50, AP75, of medium (32² to 96²) and large objects; AR likewise
    assert evaluation.stats.tolist() == pytest.approx([.5, 1., 0., .5, -1., .5, 1., 0., .5, -1.])


def test_false_alarms_and_misses():
    """Of two people one is found, by the second-best prediction of three."""
    coco = truth({}, dict(bbox=[200., 200., 40., 50.], keypoints=[210., 210., 2., 230., 240., 2.]))
    far, lower = moved(300., 0., 300., 0., score=.95), moved(0., 99., 0., 99., score=.1)
    evaluation = scored(coco, far, moved(0., 0., 0., 0.), lower)
    # precision 1/2 up to a recall of 1/2: at 51 of the 101 places
    assert evaluation.stats[0] == pytest.approx(.5 * 51 / 101) and evaluation.stats[5] == .5


def test_what_counts_as_none():
    """Neither a person without labelled keypoints, nor a prediction of which no keypoint has a score."""
    coco = truth({}, dict(keypoints=[0.] * 6))
    seen = scored(coco, moved(0., 0., 0., 0.))
    assert seen.stats[0] == pytest.approx(1.) and seen.stats[5] == 1.
    silent = moved(0., 0., 0., 0.) | dict(keypoints=[20., 20., 0., 40., 50., 0.], score=.99)
    assert scored(coco, silent, moved(0., 0., 0., 0.)).stats[0] == pytest.approx(1.)


@pytest.mark.parametrize('kind, sigmas, distances', [
    ('keypoints_body', SIGMAS, [5., 0.]),
    ('keypoints_foot', (.3, ), [1.]),
    ('keypoints_lefthand', (.3, ), [2.]),
    # the right hand is not labelled
    ('keypoints_wholebody', (*SIGMAS, .3, .3, .3, .3), [5., 0., 1., 0., 2., None]),
])
def test_parts(kind, sigmas, distances):
    found = moved(3., 4., 0., 0., **copy.deepcopy(HANDS))
    found['foot_kpts'][0] += 1.
    found['lefthand_kpts'][1] -= 2.
    evaluation = scored(truth(HANDS), found, kind=kind, sigmas=sigmas)
    expected = [similarity(d, s, AREA) for d, s in zip(distances, sigmas) if d is not None]
    assert evaluation.ious[1, 1].item() == pytest.approx(np.mean(expected))


def test_crowds():
    """CrowdPose: AP, AP50, AP75, AR, AR50, AR75, and AP of easy, medium and hard images."""
    coco = truth(*(dict(image_id=i) for i in range(1, 10)), images=9)  # crowd indices 0.1 to 0.9
    predictions = [moved(0., 0., 0., 0., image_id=i) for i in (1, 8, 9)]
    stats = scored(coco, *predictions, kind='keypoints_crowd').stats
    # three of nine are found: a recall of 1/3 at 34 of 101 places; of the easy one all, of the medium six none
    assert stats.tolist() == pytest.approx([34 / 101] * 3 + [1 / 3] * 3 + [1., 0., 1.])


def test_inputs_stay():
    coco = truth(HANDS)
    results = coco.loadRes([moved(0., 0., 0., 0., **HANDS)])
    before = copy.deepcopy((coco.dataset, results.dataset))
    evaluation = COCOeval(coco, results, 'keypoints_wholebody', np.full(6, .1), use_area=False)
    evaluation.evaluate()
    assert (coco.dataset, results.dataset) == before and evaluation.ious[1, 1].item() == pytest.approx(1.)


def test_masks():
    square = mask.frPyObjects([[1., 1., 4., 1., 4., 3., 1., 3.]], 5, 6)
    assert mask.decode(mask.merge(square)).sum() == 6


def test_the_stand_in_is_imported_only_if_the_package_is_missing(tmp_path):
    """A package of this name in a folder of ``sys.path`` wins."""
    code = 'import dwnet, xtcocotools; print(xtcocotools.__file__); from xtcocotools.coco import COCO'
    assert stand_ins.file_of('xtcocotools') in run_python('-c', code).stdout
    (tmp_path / 'xtcocotools').mkdir()
    for name in ('__init__', 'coco'):
        (tmp_path / f'xtcocotools/{name}.py').write_text('COCO = "real"')
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}; assert COCO == "real"'
    assert str(Path(tmp_path, 'xtcocotools')) in run_python('-c', code).stdout
