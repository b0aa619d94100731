"""A stand-in for ``pkg_resources``: the functions that mmengine 0.10 calls, and one that pytest calls.

setuptools 82 dropped the module, and a new environment of Python 3.12 or newer has no setuptools at all. mmengine asks
the module where a toolbox is installed. The stand-in asks ``importlib.metadata``, as open-mmlab/mmengine#1676 proposes.
"""
from importlib import metadata

DistributionNotFound = metadata.PackageNotFoundError


class Distribution:
    """An installed distribution, with ``version`` and ``location``, the folder that holds its packages."""

    def __init__(self, name: str) -> None:
        self._found = metadata.distribution(name)
        self.version, self.location = self._found.version, str(self._found.locate_file(''))

    def has_metadata(self, name: str) -> bool:
        return self._found.read_text(name) is not None

    def get_metadata(self, name: str) -> str:
        return self._found.read_text(name) or ''


get_distribution = Distribution


def fixup_namespace_packages(path: str, parent: object = None) -> None:
    """Does nothing, since no namespaces are declared here; pytest calls it for a new folder on ``sys.path``."""


def __getattr__(name: str):
    """Raises ImportError, on which other packages fall back as if there were no ``pkg_resources``."""
    if name.startswith('_'):  # Python itself and pytest ask for some of these
        raise AttributeError(name)
    raise ImportError(f"dwnet's stand-in for pkg_resources has no {name}: pip install 'setuptools<82' for the real one")
