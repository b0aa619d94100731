"""pycocotools' masks."""
from pycocotools.mask import decode, frPyObjects, merge

__all__ = ['decode', 'frPyObjects', 'merge']
