"""The data sets of this package: mmengine imports this module when a config names one as ``dwnet.…``."""
from .mmdet.coco import CheckedCocoDataset

__all__ = ['CheckedCocoDataset']
