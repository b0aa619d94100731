"""Lets toolboxes start beside releases of mmcv and mmdet that are newer than their assertions allow.

mmyolo 0.6.0 asserts mmcv < 2.1.0, and mmocr 1.0.1 asserts mmdet < 3.2.0 (open-mmlab/mmocr#1998), each in its
``__init__``. What the toolboxes take from those packages is still there. So the assertion is answered by what is
needed: while the ``__init__`` runs, it sees the newest version that it accepts, provided that the functions and classes
of the table are there. Otherwise it sees the true version, and raises its own error.

mmocr imports imgaug 0.4.0, whose import reads a table that NumPy 2 dropped (aleju/imgaug#855). While imgaug is
imported, NumPy has the table.
"""
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NamedTuple

import numpy as np


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


class _Finder(MetaPathFinder):
    """Finds the packages of ``AROUND`` by the other finders, and runs their ``__init__`` inside a context."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in AROUND:
            return None
        # old finders, which Python 3.11 and older also take, have no find_spec
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, 'find_spec'))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_inside(module: ModuleType) -> None:
                with AROUND[fullname]():
                    execute(module)

            spec.loader.exec_module = execute_inside
        return spec


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


# Package → what its ``__init__`` runs in
AROUND: dict[str, Callable[[], AbstractContextManager]] = {
    **{name: partial(accepted, check) for name, check in CHECKS.items()}, 'imgaug': with_sctypes}


def install() -> None:
    """Puts the finder first on ``sys.meta_path``; a second call does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
