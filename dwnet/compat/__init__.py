"""What the OpenMMLab releases need to run on a current PyTorch and Python, and nothing more.

==================  =============================================================
``stand_ins``       finds the stand-ins for modules and functions that are missing
``mmcv_ops``        a stand-in for mmcv's compiled operators, where there are none
``pkg_resources``   a stand-in for setuptools' module of this name
``panopticapi``     a stand-in for COCO's package of this name
``xtcocotools``     a stand-in for the evaluation of keypoints, on pycocotools
``mmaction_drn``    a stand-in for a module that mmaction2's wheel lacks
``around_import``   runs a module's code inside a context, or a function after it
``multimodal``      mmpretrain and mmaction beside a current transformers
``timm_loading``    timm's reader of checkpoints, for our models
``version_checks``  lets toolboxes start beside newer releases than they assert
``private_names``   the private names of other packages that this package uses
==================  =============================================================
"""
from . import multimodal, stand_ins, version_checks


def install() -> None:
    """Called by ``import dwnet``; calling it again changes nothing."""
    stand_ins.install()
    version_checks.install()
    multimodal.install()
