"""What the OpenMMLab releases need to run on a current PyTorch, and nothing more.

==================  ==============================================================
``mmcv_ops``        a stand-in for mmcv's compiled operators, where there are none
``serialization``   loading files and downloads without running code from them
==================  ==============================================================
"""
from . import mmcv_ops, serialization


def install() -> None:
    """Called by ``import dwnet``; calling it again changes nothing."""
    mmcv_ops.install()
    serialization.allow_checkpoint_types()
    serialization.load_downloads_safely()
