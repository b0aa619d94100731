"""What the OpenMMLab releases need to run on a current PyTorch and Python, and nothing more.

===================  ======================================================"""
from . import multimodal, stand_ins, version_checks


def install() -> None:
    """Called by ``import dwnet``; calling it again changes nothing."""
    stand_ins.install()
    version_checks.install()
    multimodal.install()
