"""A stand-in for ``mmcv._ext``, mmcv's compiled operators, built on PyTorch's and torchvision's operators.

mmdet and mmseg always import ``mmcv.ops``, and mmcv ships no compiled operators for a current PyTorch (mmcv#3310,
#3319, #3329, mmdetection#12426). The stand-in makes the import work and runs the operators of their stock configs, on
any device and with gradients; docs/mmcv_operators.md lists them.

A compiled mmcv wins: :mod:`dwnet.compat.stand_ins` puts the stand-in's finder last.

===========  =======================================================================
``ext``      imported as ``mmcv._ext``, together with torchvision, by ``mmcv.ops``
``hook``     makes the stand-ins available in every Python process, if the user asks
===========  =======================================================================
"""
import importlib.util

from .. import stand_ins

__all__ = ['in_use']

NAME = 'mmcv._ext'


def in_use() -> bool:
    """Whether ``mmcv._ext`` is, or would be, this stand-in."""
    spec = importlib.util.find_spec(NAME)
    return spec is not None and spec.origin == stand_ins.file_of(NAME)
