"""Reads annotations: pycocotools' ``COCO``, with what its evaluation needs of each annotation."""
from pycocotools.coco import COCO as _COCO


class COCO(_COCO):
    """pycocotools' ``COCO``; an annotation that does not say whether it is a crowd is none."""

    def createIndex(self) -> None:
        for annotation in self.dataset.get('annotations', ()):
            annotation.setdefault('iscrowd', 0)
        super().createIndex()
