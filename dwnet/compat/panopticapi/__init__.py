"""A stand-in for ``panopticapi``: what mmdet asks it for. The real one, cocodataset/panopticapi, is not on PyPI.

==============  =====================================================
``utils``       segments as colours
``evaluation``  panoptic quality from counts
==============  =====================================================
"""
