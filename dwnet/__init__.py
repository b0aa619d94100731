"""DWNet for OpenMMLab: one backbone for classification, detection and segmentation.

Importing this package also lets the toolboxes run without mmcv's compiled operators, see
:mod:`dwnet.compat`; so import it before mmdet and mmseg where mmcv is mmcv-lite.
"""
import sys

from .version import __version__

__all__ = ['DWNet', '__version__']

try:
    from . import compat
    compat.install()
    from . import hub, schedules  # noqa: F401  registers them
    from .models import DWNet  # imports mmcv, so it comes after compat
    if compat.timm_is_safe():
        from . import timm_models  # noqa: F401  registers them
except Exception as error:  # torchvision for another torch raises RuntimeError
    # '-m': the start of `python -m dwnet doctor`, which has to run where nothing else does
    if sys.argv[0] != '-m':
        from .doctor import HEADLESS, lacks_display_library
        remedy = HEADLESS + '; ' if lacks_display_library(str(error)) else ''
        raise ImportError(f'dwnet cannot be imported: {error}; {remedy}`python -m dwnet doctor` says what is missing '
                          'and what to do') from error
