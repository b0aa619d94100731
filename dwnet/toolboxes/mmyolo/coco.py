"""mmyolo's COCO data set with the checks of mmdet's: broken images and annotations are logged and left out."""
from mmyolo.datasets import YOLOv5CocoDataset

from dwnet.registry import DATASETS

from ..mmdet.coco import CheckedCocoDataset, upright


@DATASETS.register_module()
class CheckedYOLOv5CocoDataset(CheckedCocoDataset, YOLOv5CocoDataset):
    """mmyolo's ``YOLOv5CocoDataset`` with the checks of :class:`~dwnet.toolboxes.mmdet.coco.CheckedCocoDataset`."""

    def prepare_data(self, idx: int) -> dict | None:
        info = upright(self.get_data_info(idx))
        if not self.test_mode:
            info['dataset'] = _Upright(self)
        return self.pipeline(info)


class _Upright:
    """The images from which Mosaic and MixUp draw, each with the annotation of the image as it is read."""

    def __init__(self, dataset: YOLOv5CocoDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def get_data_info(self, idx: int) -> dict:
        return upright(self._dataset.get_data_info(idx))
