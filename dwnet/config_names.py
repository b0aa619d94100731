"""Configs by name, ``'dwnet::TASK/NAME.py'``, wherever the package is installed.

Configs and tools are in ``.mim`` beside this file, as in OpenMMLab's packages: copies in a wheel, links to the folders
in a clone. ``_base_ = 'dwnet::…'`` of another config, ``mmengine.hub.get_config('dwnet::…')`` and
``get_model('dwnet::…')`` take these names.
"""
import os
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from dwnet.errors import UserError

MIM = Path(__file__).parent / '.mim'

# mmengine looks for .mim beside this module. Under the package's own name it would look into site-packages, where an
# editable installation has no folder.
MODULE2PACKAGE['dwnet'] = 'dwnet.config_names'
# mmengine.hub.get_model imports PACKAGE.utils and calls its register_all_modules
sys.modules['dwnet.utils'] = sys.modules[__name__]


def register_all_modules(init_default_scope: bool = True) -> None:
    """Does nothing: the registries import their modules when a type is looked up."""


def script(name: str) -> str:
    """The path of a script of ``tools/``: relative in a clone, else the path in the installed package."""
    path, here = MIM / 'tools' / name, Path('tools', name)
    return str(here if here.is_file() and here.samefile(path) else path)


def config_path(config: str | os.PathLike) -> str:
    """The file of a config that may be named as ``'dwnet::…'``, ``'mmdet::…'`` and the like.

    Args:
        config: A path, which is returned as it is, or a name with ``::``.

    Returns:
        The path of the file.

    Raises:
        UserError: If no package has a config of this name.

    Example:
        >>> from dwnet.config_names import config_path
        >>> config_path('dwnet::classification/dwnet-tiny_in1k.py').endswith('classification/dwnet-tiny_in1k.py')
        True
    """
    if '::' not in str(config):
        return str(config)
    try:
        return Config._get_cfg_path(str(config), '')[0]
    except Exception as error:  # assertions, import errors and missing files
        known = ', '.join(sorted(p.name for p in (MIM / 'configs').glob('*/*.py')))
        raise UserError(f'{config} names no config; those of dwnet, behind dwnet::TASK/, are {known}') from error
