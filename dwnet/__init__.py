"""DWNet for OpenMMLab: one backbone for classification, detection and segmentation.

Importing this package also lets the toolboxes run without mmcv's compiled operators, see
:mod:`dwnet.compat`; so import it before mmdet and mmseg where mmcv is mmcv-lite.
"""
from . import compat
from .version import __version__

compat.install()

from .models import DWNet  # noqa: E402  mmcv is imported here, with its operators provided for

__all__ = ['DWNet', '__version__']
