"""What the graphs of detectors share: mmdet's predictions to compare with, the score threshold, and NMS."""
from collections.abc import Iterable

import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torchvision.ops import nms

from dwnet.errors import UserError

from ..graphs import Normalise


class DetectorGraph(nn.Module):
    """A graph of one image, whose score threshold can be lowered."""
    batch = 1

    def __init__(self, model: nn.Module, outputs: Iterable[str] = ('boxes', 'scores', 'labels')) -> None:
        super().__init__()
        self.normalise, self.model = Normalise(model), model
        self.axes: dict[str, dict[int, str]] = {name: {0: 'detections'} for name in outputs}

    def reference(self, model: nn.Module, pictures: list[Tensor]) -> list[Tensor]:
        """mmdet's boxes, scores and labels for one picture (C, H, W), colours BGR."""
        found = predict(model, pictures).pred_instances
        return [found.bboxes, found.scores, found.labels]

    def find_more(self, model: nn.Module, photographs: list[Tensor]) -> None:
        """Lowers the score threshold of this graph and of ``model`` until each photograph has boxes.

        The threshold is set in the widest gap between scores, so that rounding moves no box across the threshold.
        """
        self.set_threshold(model, 0.)
        found = [self.reference(model, [picture])[1] for picture in photographs]
        scores = torch.cat(found).sort(descending=True)[0]
        scores = scores[scores <= min((best.max() for best in found if len(best)), default=0)][:20]
        scores = torch.cat([scores, scores.new_zeros(1)])
        widest = int((scores[:-1] - scores[1:]).argmax()) if len(scores) > 1 else 0
        for each in (self.model, model):
            self.set_threshold(each, float(scores[widest:widest + 2].mean()))

    def set_threshold(self, model: nn.Module, threshold: float) -> None:
        """Sets the score threshold of a model of this graph's kind."""
        raise NotImplementedError


def predict(model: nn.Module, pictures: list[Tensor]) -> DetDataSample:
    """mmdet's predictions for one picture (C, H, W), colours BGR, that was not resized."""
    shape = tuple(pictures[0].shape[1:])
    sample = DetDataSample(metainfo=dict(ori_shape=shape, img_shape=shape, scale_factor=(1., 1.)))
    return model.test_step(dict(inputs=pictures, data_samples=[sample]))[0]


def flatten(level: Tensor, channels: int) -> Tensor:
    """A level's map for one image, (1, priors · channels, H, W), as (H · W · priors, channels)."""
    return level[0].permute(1, 2, 0).reshape(-1, channels)


def clip(boxes: Tensor, size: torch.Size) -> Tensor:
    """Clips boxes to an image of ``size`` (height, width)."""
    height, width = size
    return torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], 2).flatten(1)


def refuse_other_nms(model: nn.Module, config: ConfigDict) -> None:
    """Raises UserError if ``config`` asks for anything but plain NMS, such as Soft-NMS."""
    method = config.get('nms') or {}
    known = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    if method.get('type', 'nms') != 'nms' or not {'iou_threshold'} <= set(method) <= known:
        raise UserError(f'{type(model).__name__} cannot be exported with nms={dict(method)}: only plain NMS, '
                        "dict(type='nms', iou_threshold=…), can; the backbone alone can, by --backbone")


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, method: ConfigDict) -> Tensor:
    """Per-class NMS by offsetting the boxes of each class; returns indices, best first."""
    if not method.get('class_agnostic', False):
        # 0 is the largest coordinate of no boxes at all
        largest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
        boxes = boxes + (labels.to(boxes) * (largest + 1))[:, None]
    return nms(boxes, scores, method.iou_threshold)
