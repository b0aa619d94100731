"""Registers our models when timm is imported: timm has no entry points for models of other packages."""
import importlib.metadata
import warnings

from packaging.version import Version

from dwnet.compat.around_import import after_import
from dwnet.errors import one_line

TIMM = '1.0.26'


def register_when_imported() -> None:
    """Registers the models after an import of timm; dwnet does not import timm, which takes 1.3 s."""
    after_import('timm.models', _register)


def _register() -> None:
    if not timm_is_safe():
        return
    try:
        import dwnet.toolboxes.timm  # noqa: F401  registers them
    except Exception as error:  # timm has to stay usable for other models
        warnings.warn(f"dwnet's models are not in timm: {one_line(error)}; `python -m dwnet doctor` says more",
                      stacklevel=2)


def timm_is_safe() -> bool:
    """Whether timm is there and recent enough to load files without running code from them."""
    try:
        return Version(importlib.metadata.version('timm')) >= Version(TIMM)
    except importlib.metadata.PackageNotFoundError:
        return False
