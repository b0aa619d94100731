"""Batches for stock configs of mmaction and mmocr, and what their predictions hold."""
import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, LabelData

TEXT_SIDE = 128  # pixels; the losses of text detectors shrink lines by some pixels
LINE = 32, 128  # height and width of a line for recognizers


def clips(cfg: Config, side: int) -> dict:
    """Two clips of as many frames as the head takes."""
    from mmaction.structures import ActionDataSample
    frames = cfg.model.cls_head.get('num_segments', 8)
    inputs = [torch.randint(0, 256, (frames, 3, side, side), dtype=torch.uint8) for _ in range(2)]
    return dict(inputs=inputs, data_samples=[ActionDataSample().set_gt_label(i) for i in range(2)])


def check_clips(predictions: list, side: int) -> None:
    assert len(predictions) == 2
    for sample in predictions:
        assert sample.pred_score.numel() > 1 and sample.pred_score.isfinite().all()


def text(cfg: Config, side: int) -> dict:
    """Two images of two lines each; for recognizers, two lines."""
    from mmocr.structures import TextDetDataSample, TextRecogDataSample
    samples = []
    if 'det_head' not in cfg.model:
        for word in ('1234', '56'):
            sample = TextRecogDataSample(metainfo=dict(img_shape=LINE, ori_shape=LINE, valid_ratio=1.))
            sample.gt_text = LabelData(item=word)
            samples.append(sample)
        return dict(inputs=_images(*LINE), data_samples=samples)
    for _ in range(2):
        polygons = np.array([[8, 10, 90, 14, 88, 44, 6, 40], [30, 70, 120, 70, 120, 110, 30, 110]], np.float32)
        shape = (TEXT_SIDE, TEXT_SIDE)
        sample = TextDetDataSample(metainfo=dict(img_path='', img_shape=shape, ori_shape=shape, scale_factor=(1., 1.)))
        corners = polygons.reshape(2, 4, 2)
        sample.gt_instances = InstanceData(
            polygons=list(polygons), bboxes=torch.from_numpy(np.hstack([corners.min(1), corners.max(1)])),
            labels=torch.zeros(2).long(), ignored=torch.zeros(2, dtype=torch.bool))
        samples.append(sample)
    return dict(inputs=_images(TEXT_SIDE, TEXT_SIDE), data_samples=samples)


def _images(height: int, width: int) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(2)]


def check_text(predictions: list, side: int) -> None:
    assert len(predictions) == 2
    for sample in predictions:
        if 'pred_text' in sample:
            assert isinstance(sample.pred_text.item, str)
            continue
        found = sample.pred_instances
        assert len(found.polygons) == len(found.scores)
        assert all(len(polygon) >= 6 and np.isfinite(polygon).all() for polygon in found.polygons)
