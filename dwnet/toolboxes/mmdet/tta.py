"""Test-time augmentation of detectors that also predict masks; imports mmdet."""
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS


@MODELS.register_module()
class BoxTTAModel(DetTTAModel):
    """mmdet's ``DetTTAModel`` on boxes alone; mmdet's refuses predicted masks."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        head = getattr(self.module, 'roi_head', None)
        if getattr(head, 'with_mask', False):
            # no masks are predicted, since mmdet's cascade fails on mirrored images; the mask head keeps its weights
            head.__class__ = type(type(head).__name__, (type(head), ), dict(with_mask=False))

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        for sample in data_samples:
            sample.pred_instances.pop('masks', None)
        return super()._merge_single_sample(data_samples)
