"""A stand-in for ``mmcv._ext``, mmcv's compiled operators, made of PyTorch's and torchvision's operators.

mmdet and mmseg import ``mmcv.ops`` whether they use it or not, and mmcv ships no compiled operators for
a current PyTorch (mmcv#3310, #3319, #3329, mmdetection#12426). With the stand-in they import, and what
their stock configs need runs, on any device and with gradients; docs/mmcv_operators.md lists it.

It does nothing where mmcv is compiled: its finder stands last on ``sys.meta_path``, so it is asked only
when nobody else has found ``mmcv._ext``.

===========  ==================================================================
``ext``      what is imported as ``mmcv._ext``, and torchvision with it, when ``mmcv.ops`` is
``hook``     the finder in every Python process, where the user asks for it
===========  ==================================================================
"""
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

__all__ = ['in_use', 'install']

NAME = 'mmcv._ext'
STAND_IN = str(Path(__file__).parent / 'ext' / '__init__.py')


class _Finder(MetaPathFinder):
    """Finds ``mmcv._ext`` when nobody else does."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(NAME, STAND_IN) if fullname == NAME else None


def install() -> None:
    """Puts the finder last on ``sys.meta_path``; a second call does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def in_use() -> bool:
    """Whether ``mmcv._ext`` is, or would be, this stand-in."""
    spec = importlib.util.find_spec(NAME)
    return spec is not None and spec.origin == STAND_IN
