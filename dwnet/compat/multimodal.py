"""Lets mmpretrain be imported beside a current transformers, without its multimodal models.

With transformers 4.28 or newer mmpretrain 1.2.0 imports its multimodal models. BLIP takes functions from
``transformers.modeling_utils`` that have moved since 4.56 (xinyu1205/recognize-anything#219), and the import of all of
mmpretrain ends with a TypeError. With this patch mmpretrain has the models that it has without transformers.
"""
import sys
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from .after_import import after_import

MOVED = Version('4.56')
MODULE = 'mmpretrain.utils.dependency'


def install() -> None:
    """Leaves the multimodal models out, if the installed transformers is too new for them."""
    try:
        too_new = Version(version('transformers')) >= MOVED
    except PackageNotFoundError:
        return
    if too_new and MODULE not in sys.modules:
        after_import(MODULE, lambda: setattr(sys.modules[MODULE], 'WITH_MULTIMODAL', False))
