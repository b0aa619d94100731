"""Lets toolboxes start beside releases of mmcv and mmdet that are newer than their assertions allow.

mmyolo 0.6.0 asserts mmcv < 2.1.0, and mmocr 1.0.1 asserts mmdet < 3.2.0 (open-mmlab/mmocr#1998), each in its
``__init__``. What the toolboxes take from those packages is still there. So the assertion is answered by what is
needed: while the ``__init__`` runs, it sees the newest version that it accepts, provided that the functions and classes
of the table are there. Otherwise it sees the true version, and raises its own error.

mmocr imports imgaug 0.4.0, whose import reads a table that NumPy 2 dropped (aleju/imgaug#855). While imgaug is
imported, NumPy has the table.
"""
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np

from .around_import import around_import


class Check(NamedTuple):
    """What one toolbox asserts.

    Attributes:
        package: The package whose version is asserted.
        newest: The newest release that is accepted.
        needs: What the toolbox takes from the package: ``module:name``.
    """
    package: str
    newest: str
    needs: tuple[str, ...]


CHECKS = {
    'mmyolo': Check('mmcv', '2.0.1', (
        'mmcv.cnn:ConvModule', 'mmcv.cnn:DepthwiseSeparableConvModule', 'mmcv.cnn:build_norm_layer',
        'mmcv.cnn:is_norm', 'mmcv.transforms:BaseTransform', 'mmcv.transforms:LoadAnnotations',
        'mmcv.ops:batched_nms')),
    'mmocr': Check('mmdet', '3.1.0', (
        'mmdet.structures:DetDataSample', 'mmdet.structures:SampleList', 'mmdet.structures.bbox:bbox2roi',
        'mmdet.structures.mask:PolygonMasks', 'mmdet.structures.mask:bitmap_to_polygon',
        'mmdet.models.backbones:MobileNetV2', 'mmdet.models.backbones:ResNet', 'mmdet.models.losses:accuracy',
        'mmdet.models.utils:multi_apply', 'mmdet.datasets.coco:CocoDataset',
        'mmdet.datasets.api_wrappers:COCO')),
}


@contextmanager
def accepted(check: Check) -> Iterator[None]:
    """Inside, the package says that it is the newest accepted version, if it has what is needed."""
    package = importlib.import_module(check.package)
    true = package.__version__
    if not any(_missing(need) for need in check.needs):
        package.__version__ = check.newest
    try:
        yield
    finally:
        package.__version__ = true


def _missing(need: str) -> bool:
    module, _, name = need.partition(':')
    try:
        return not hasattr(importlib.import_module(module), name)
    except ImportError:
        return True


@contextmanager
def with_sctypes() -> Iterator[None]:
    """Inside, NumPy has ``sctypes``: the kinds of numbers → their types."""
    if hasattr(np, 'sctypes'):
        yield
        return
    np.sctypes = dict(int=[np.int8, np.int16, np.int32, np.int64],
                      uint=[np.uint8, np.uint16, np.uint32, np.uint64],
                      float=[np.float16, np.float32, np.float64, np.longdouble])
    try:
        yield
    finally:
        del np.sctypes


def install() -> None:
    """Sees to the packages whenever they are imported."""
    for package, check in CHECKS.items():
        around_import(package, partial(accepted, check))
    around_import('imgaug', with_sctypes)
