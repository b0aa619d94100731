"""Stand-ins for what OpenMMLab's releases import and a current Python, setuptools or mmcv-lite lacks.

A stand-in is used only if the real module is missing: the finder is last on ``sys.meta_path``, so Python asks it after
all others.

===================================  ==================================================================================
``mmcv._ext``                        mmcv's compiled operators; see :mod:`dwnet.compat.mmcv_ops`
``mmaction.models.localizers.drn``   left out of mmaction2's wheel, and imported (open-mmlab/mmaction2#2714)
``panopticapi``                      not on PyPI; mmdet's panoptic data and metric ask it for colours and counts
``pkg_resources``                    gone since setuptools 82; mmengine asks it for folders (open-mmlab/mmengine#1676)
``xtcocotools``                      no wheel for Python 3.12 and newer; see :mod:`dwnet.compat.xtcocotools`
``pkgutil.find_loader``              gone since Python 3.14 (python/cpython#97850); mmengine and mmcv ask it for
                                     mmcv._ext
===================================  ==================================================================================
"""
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

MODULES = {'mmcv._ext': 'mmcv_ops/ext/__init__.py', 'panopticapi': 'panopticapi/__init__.py',  # below this folder
           'pkg_resources': 'pkg_resources.py', 'xtcocotools': 'xtcocotools/__init__.py',
           'mmaction.models.localizers.drn': 'mmaction_drn.py', 'mmaction.models.localizers.drn.drn': 'mmaction_drn.py'}


class _Finder(MetaPathFinder):
    """Finds the stand-ins for modules that no other finder finds."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(fullname, file_of(fullname)) if fullname in MODULES else None


def file_of(module: str) -> str:
    """The file that is imported as ``module``."""
    return str(Path(__file__).parent / MODULES[module])


def find_loader(name: str) -> Loader | None:
    """What ``pkgutil.find_loader`` returned: the loader of a module, ``None`` if there is no such module."""
    spec = importlib.util.find_spec(name)
    return spec and spec.loader


def install() -> None:
    """Puts the finder last on ``sys.meta_path``, and restores ``pkgutil.find_loader``; a second call does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    if not hasattr(pkgutil, 'find_loader'):
        pkgutil.find_loader = find_loader
