"""DWNet for OpenMMLab: one backbone for classification, detection and segmentation.

Importing this package also lets the toolboxes run without mmcv's compiled operators (:mod:`dwnet.compat`). With
mmcv-lite, import dwnet before mmdet and mmseg. torchvision, timm and the toolboxes are imported at first use.
"""
import sys

from .version import __version__

__all__ = ['DWNet', 'TOKEN_MIXERS', '__version__']

# While Python imports this package for `python -m dwnet`, argv[0] is '-m'. The list of commands and `doctor` have to
# run where PyTorch does not, so dwnet/__main__.py reloads this module in full once it knows the command.
if sys.argv[0] != '-m' or ' '.join(sys.orig_argv).partition(' -m ')[2].split(' ')[0] != 'dwnet':
    try:
        from . import compat
        compat.install()
        from . import config_names, schedules  # noqa: F401  registers them
        from .toolboxes import TOOLBOXES, timm_registration
        from .weights import safety
        safety.serve_mmengine()
        timm_registration.register_when_imported()
        for toolbox in TOOLBOXES.values():
            toolbox.when_imported()
        from .models import DWNet  # imports mmcv, so it comes after compat
        from .registry import TOKEN_MIXERS
    except Exception as error:  # a broken package may raise anything
        from .commands.doctor import HEADLESS, lacks_display_library
        remedy = HEADLESS + '; ' if lacks_display_library(str(error)) else ''
        raise ImportError(f'dwnet cannot be imported: {error}; {remedy}`python -m dwnet doctor` says what is missing '
                          'and what to do') from error
