"""A stand-in for ``xtcocotools``, built on pycocotools: what mmpose 1.3 calls of it.

mmpose imports ``xtcocotools`` whatever the data set. The package has no wheel for Python 3.12 and newer, and its wheels
for older Pythons are built for NumPy 1 (jin-s13/xtcocoapi#45).

============  ==========================================================================
``coco``      reads annotations: pycocotools' ``COCO``, whose annotations all say whether they are crowds
``cocoeval``  scores keypoints, with the sigmas of the data set
``mask``      pycocotools' masks
============  ==========================================================================
"""
