"""Scores keypoints: pycocotools' ``COCOeval`` with mmpose's arguments.

pycocotools scores the 17 keypoints of COCO's people. mmpose has data sets of other keypoints with other sigmas, of
several groups of keypoints (body, feet, face, hands), without areas (AIC), and of crowds (CrowdPose). The annotations
are copied to the form that pycocotools scores, so no line of its evaluation is repeated here.
"""
import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval as _COCOeval

_BODY = ('keypoints', )
_WHOLE_BODY = (*_BODY, 'foot_kpts', 'face_kpts', 'lefthand_kpts', 'righthand_kpts')
# What is scored → the keys of an annotation that have its keypoints
_KEYS = {'keypoints': _BODY, 'keypoints_crowd': _BODY, 'keypoints_body': _BODY, 'keypoints_wholebody': _WHOLE_BODY,
         **{f"keypoints_{key.removesuffix('_kpts')}": (key, ) for key in _WHOLE_BODY[1:]}}
_AREA_OF_BOX = .53  # a person's share of the box: what COCO's evaluation takes where no area is known
_CROWDED = (-np.inf, .2, .8, np.inf)  # crowd indices of CrowdPose's easy, medium and hard images


class COCOeval(_COCOeval):
    """The average precision and recall of keypoints by their object keypoint similarity (OKS).

    Args:
        cocoGt: The annotations; they stay as they are.
        cocoDt: What ``cocoGt.loadRes`` returned; it stays as it is.
        iouType: What is scored: a key of ``_KEYS``.
        sigmas: (K, ); by default those of COCO's 17 keypoints.
        use_area: Whether the annotations have areas; otherwise the area is 0.53 of the box.

    Attributes:
        stats: After ``summarize``: AP, AP50, AP75, AP of medium and of large objects, and AR likewise; of
            ``'keypoints_crowd'`` AP, AP50, AP75, AR, AR50, AR75, and AP of easy, medium and hard images.
    """

    def __init__(self, cocoGt: COCO, cocoDt: COCO, iouType: str = 'keypoints', sigmas: Sequence[float] | None = None,
                 use_area: bool = True) -> None:
        keys = _KEYS[iouType]
        truth = [_as_people(annotation, keys) for annotation in cocoGt.anns.values()]
        if not use_area:
            for annotation in truth:
                annotation['area'] = _AREA_OF_BOX * annotation['bbox'][2] * annotation['bbox'][3]
        # a prediction without a keypoint counts as none
        found = [person for annotation in cocoDt.anns.values()
                 if (person := _as_people(annotation, keys))['num_keypoints']]
        super().__init__(_with_annotations(cocoGt, truth), _with_annotations(cocoDt, found), 'keypoints')
        if sigmas is not None:
            self.params.kpt_oks_sigmas = np.asarray(sigmas)
        self._of_crowds = iouType == 'keypoints_crowd'

    def summarize(self) -> None:
        super().summarize()
        if self._of_crowds:
            by_crowding = [self._precision_between(*bounds) for bounds in zip(_CROWDED, _CROWDED[1:])]
            self.stats = np.array([*self.stats[[0, 1, 2, 5, 6, 7]], *by_crowding])

    def _precision_between(self, lowest: float, highest: float) -> float:
        """The average precision on the images of these crowd indices; -1 if there are none."""
        images = copy.copy(self)
        images.params = copy.copy(self.params)
        images.params.imgIds = [image['id'] for image in self.cocoGt.dataset['images']
                                if lowest <= image['crowdIndex'] < highest]
        images.evaluate()
        images.accumulate()
        return float(np.mean(images.eval['precision'][:, :, :, 0, :]).round(4))


def _as_people(annotation: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A copy of an annotation, or prediction, with the keypoints of ``keys`` in the place of COCO's."""
    keypoints = [value for key in keys for value in annotation[key]]
    return {**annotation, 'keypoints': keypoints, 'num_keypoints': sum(seen > 0 for seen in keypoints[2::3])}


def _with_annotations(coco: COCO, annotations: list[dict]) -> COCO:
    copied = COCO()
    copied.dataset = {**coco.dataset, 'annotations': annotations}
    copied.createIndex()
    return copied
