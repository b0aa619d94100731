"""Our models in timm, from the moment somebody imports it: timm has no entry points for models of other packages."""
import importlib.metadata
import warnings

from packaging.version import Version

from dwnet.compat.after_import import after_import
from dwnet.errors import one_line

TIMM = '1.0.26'


def register_when_imported() -> None:
    """Registers the models behind an import of timm, which takes 1.3 s and so is left to others."""
    after_import('timm.models', _register)


def _register() -> None:
    if not timm_is_safe():
        return
    try:
        import dwnet.toolboxes.timm  # noqa: F401  registers them
    except Exception as error:  # timm is imported by others, too, and stays usable for them
        warnings.warn(f"dwnet's models are not in timm: {one_line(error)}; `python -m dwnet doctor` says more",
                      stacklevel=2)


def timm_is_safe() -> bool:
    """Whether timm is there and recent enough to load files without running code from them."""
    try:
        return Version(importlib.metadata.version('timm')) >= Version(TIMM)
    except importlib.metadata.PackageNotFoundError:
        return False
