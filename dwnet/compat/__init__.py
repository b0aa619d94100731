"""What the OpenMMLab releases need to run on a current PyTorch and Python, and nothing more.

==================  ==============================================================
``stand_ins``       finds the stand-ins for modules and functions that are missing
``mmcv_ops``        a stand-in for mmcv's compiled operators, where there are none
``pkg_resources``   a stand-in for setuptools' module of this name
``serialization``   loading files and downloads without running code from them
``timm_loading``    the same for timm, imported with its models
==================  ==============================================================
"""
import importlib.metadata

from packaging.version import Version

from . import serialization, stand_ins

TIMM = '1.0.26'


def install() -> None:
    """Called by ``import dwnet``; calling it again changes nothing."""
    stand_ins.install()
    serialization.serve_mmengine()


def timm_is_safe() -> bool:
    """Whether timm is there and recent enough to load files without running code from them."""
    try:
        return Version(importlib.metadata.version('timm')) >= Version(TIMM)
    except importlib.metadata.PackageNotFoundError:
        return False
