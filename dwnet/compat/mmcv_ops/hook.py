"""``python -m dwnet hook on``: the stand-ins in every process of this Python, also where nothing imports dwnet.

With the hook the toolboxes' own tools run with mmcv-lite: they import ``mmcv.ops`` before a config can import dwnet.
The hook is one line in ``site-packages``, which Python runs at its start. The line does what
:func:`dwnet.compat.stand_ins.install` does, without importing dwnet: the finder is last, so a compiled mmcv wins. The
finder finds nothing once dwnet is uninstalled.
"""
import sysconfig
from pathlib import Path

from dwnet.compat.stand_ins import MODULES
from dwnet.errors import UserError

LINE = (
    "import sys, pkgutil; sys.meta_path.append(type('DWNetFinder', (), dict(find_spec=staticmethod("
    f"lambda name, path=None, target=None: (file := {MODULES}.get(name))"
    " and (util := __import__('importlib.util').util) and (found := util.find_spec('dwnet')) and found.origin"
    " and util.spec_from_file_location("
    "name, found.origin.removesuffix('__init__.py') + 'compat/' + file) or None))));"
    " hasattr(pkgutil, 'find_loader') or setattr(pkgutil, 'find_loader', "
    "lambda name: getattr(__import__('importlib.util').util.find_spec(name), 'loader', None))\n")


def place() -> Path:
    """The hook's file in this Python's site-packages."""
    return Path(sysconfig.get_path('purelib')) / 'dwnet_mmcv_ops.pth'


def is_on() -> bool:
    return place().is_file()


def is_current() -> bool:
    """Whether the hook's file holds this version's line."""
    return is_on() and place().read_text() == LINE


def turn_on() -> None:
    """Writes the hook's file.

    Raises:
        UserError: If site-packages is not writable.
    """
    try:
        place().write_text(LINE)
    except OSError as error:
        raise UserError(f'{place()} cannot be written: {error.strerror}; use a virtual environment') from error


def turn_off() -> None:
    """Removes the hook's file.

    Raises:
        UserError: If site-packages is not writable.
    """
    try:
        place().unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f'{place()} cannot be removed: {error.strerror}') from error


def state() -> str:
    """On or off, as a sentence for people."""
    if not is_on():
        return 'off: only processes that import dwnet have the operators'
    return f'on: every process of this Python has the operators ({place()})'
