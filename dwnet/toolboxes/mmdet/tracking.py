"""Follows the objects of a video: mmdet's ByteTrack gives each an identity.

Source: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022. The settings are
those of mmdet's configs/bytetrack. mmdet's own model around the tracker is not used: it runs the detector itself, frame
by frame, and returns boxes alone.
"""
import importlib.util

import torch
from mmdet.models.task_modules.tracking import KalmanFilter
from mmdet.models.trackers import ByteTracker
from mmdet.structures import DetDataSample

from dwnet.errors import UserError

BYTE_TRACK = dict(
    motion=dict(type=KalmanFilter), obj_score_thrs=dict(high=.6, low=.1), init_track_thr=.7,
    weight_iou_with_det_scores=True, match_iou_thrs=dict(high=.1, low=.5, tentative=.3), num_frames_retain=30)


class Tracker:
    """Gives the detections of one video identities, frame after frame.

    Raises:
        UserError: If the package ``lap`` is missing.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec('lap') is None:
            raise UserError('--track needs the package lap: pip install lap')
        self._tracker = ByteTracker(**BYTE_TRACK)
        self._frame = 0

    def follow(self, sample: DetDataSample) -> None:
        """Sets ``instances_id`` of a frame's ``pred_instances``: (N,), int64, from 1; 0 is no identity.

        Args:
            sample: The next frame's predictions, on the CPU.

        Raises:
            UserError: If the predictions have no boxes: panoptic segments, or masks alone, whose boxes are zeros.
        """
        if 'pred_panoptic_seg' in sample or len(sample.pred_instances) and not sample.pred_instances.bboxes.any():
            raise UserError('--track follows boxes, and this model predicts segments or masks alone: leave it out')
        instances = sample.pred_instances
        size = instances.bboxes[:, 2:] - instances.bboxes[:, :2]
        solid, = torch.nonzero((size > 0).all(1), as_tuple=True)  # the motion of other boxes is not a number
        found = self._tracker.track(DetDataSample(
            metainfo=dict(frame_id=self._frame), pred_instances=instances[solid]))
        self._frame += 1
        # the tracker returns the boxes that it follows, in an order of its own
        same = ((found.bboxes[:, None] == instances.bboxes).all(-1) & (found.scores[:, None] == instances.scores)
                & (found.labels[:, None] == instances.labels))
        followed, here = same.nonzero(as_tuple=True)
        instances.instances_id = torch.zeros(len(instances), dtype=torch.int64)
        instances.instances_id[here] = found.instances_id[followed] + 1
        for track in self._tracker.tracks.values():  # mmdet keeps the boxes of all frames, and looks at the last few
            for name in self._tracker.memo_items:
                del track[name][:-self._tracker.num_tentatives]
