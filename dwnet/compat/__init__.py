"""What the OpenMMLab releases need to run on a current PyTorch and Python, and nothing more.

==================  ==============================================================
``stand_ins``       finds the stand-ins for modules and functions that are missing
``mmcv_ops``        a stand-in for mmcv's compiled operators, where there are none
``pkg_resources``   a stand-in for setuptools' module of this name
``serialization``   loading files and downloads without running code from them
``after_import``    a function that is called when somebody imports a module: our models in timm
``timm_loading``    what ``serialization`` allows, for timm's reader and our models
==================  ==============================================================
"""
import importlib.metadata
import warnings

from packaging.version import Version

from dwnet.errors import one_line

from . import serialization, stand_ins
from .after_import import after_import

TIMM = '1.0.26'


def install() -> None:
    """Called by ``import dwnet``; calling it again changes nothing."""
    stand_ins.install()
    serialization.serve_mmengine()
    # timm has no entry points for models of other packages, and takes 1.3 s to import
    after_import('timm.models', _register_in_timm)


def _register_in_timm() -> None:
    if not timm_is_safe():
        return
    try:
        import dwnet.timm_models  # noqa: F401  registers them
    except Exception as error:  # timm is imported by others, too, and stays usable for them
        warnings.warn(f"dwnet's models are not in timm: {one_line(error)}; `python -m dwnet doctor` says more",
                      stacklevel=2)


def timm_is_safe() -> bool:
    """Whether timm is there and recent enough to load files without running code from them."""
    try:
        return Version(importlib.metadata.version('timm')) >= Version(TIMM)
    except importlib.metadata.PackageNotFoundError:
        return False
