"""Lets mmpretrain and mmaction be imported beside a current transformers, without their multimodal models.

With transformers 4.28 or newer mmpretrain 1.2.0 and mmaction2 1.2.0 import their multimodal models. BLIP and VindLU
take functions from ``transformers.modeling_utils`` that have moved since 4.56 (xinyu1205/recognize-anything#219), and
the import of all of the toolbox ends with an error. With this patch the toolboxes have the models that they have
without transformers; mmaction says of VindLU what is missing.
"""
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from .around_import import after_import

MOVED = Version('4.56')
MODULES = ('mmpretrain.utils.dependency', 'mmaction.utils.dependency')


def install() -> None:
    """Leaves the multimodal models out, if the installed transformers is too new for them."""
    try:
        too_new = Version(version('transformers')) >= MOVED
    except PackageNotFoundError:
        return
    for module in MODULES if too_new else ():
        after_import(module, partial(_leave_out, module))


def _leave_out(module: str) -> None:
    sys.modules[module].WITH_MULTIMODAL = False
