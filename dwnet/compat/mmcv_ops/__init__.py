"""A stand-in for ``mmcv._ext``, mmcv's compiled operators, made of PyTorch's and torchvision's operators.

mmdet and mmseg import ``mmcv.ops`` whether they use it or not, and mmcv ships no compiled operators for
a current PyTorch (mmcv#3310, #3319, #3329, mmdetection#12426). With the stand-in they import, and what
their stock configs need runs, on any device and with gradients; docs/mmcv_operators.md lists it.

Where mmcv is compiled the stand-in does nothing: :mod:`dwnet.compat.stand_ins` finds it last.

===========  ==================================================================
``ext``      what is imported as ``mmcv._ext``, and torchvision with it, when ``mmcv.ops`` is
``hook``     the finder in every Python process, where the user asks for it
===========  ==================================================================
"""
import importlib.util

from .. import stand_ins

__all__ = ['in_use']

NAME = 'mmcv._ext'


def in_use() -> bool:
    """Whether ``mmcv._ext`` is, or would be, this stand-in."""
    spec = importlib.util.find_spec(NAME)
    return spec is not None and spec.origin == stand_ins.file_of(NAME)
