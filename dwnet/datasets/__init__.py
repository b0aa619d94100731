"""Data that needs no download, and the reading of images and COCO annotations with what is broken in them named.

===========  ================================================================
``digits``   the embedded data
``loading``  images, and which parts of a config are replaced for the checks
``coco``     COCO annotations; imports mmdet
===========  ================================================================
"""
