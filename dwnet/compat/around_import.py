"""Runs a module's code inside a context, or a function after it, without importing the module."""
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Finder(MetaPathFinder):
    """Finds one module by the other finders, and runs the module's code inside the context that ``inside`` makes."""

    def __init__(self, name: str, inside: Callable[[], AbstractContextManager]) -> None:
        self.name, self.inside = name, inside

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        # old finders, which Python 3.11 and older also take, have no find_spec
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, 'find_spec'))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_inside(module: ModuleType) -> None:
                with self.inside():
                    execute(module)

            spec.loader.exec_module = execute_inside
        return spec


def around_import(name: str, inside: Callable[[], AbstractContextManager]) -> None:
    """Runs the code of the module ``name`` inside a context at each import from now on."""
    sys.meta_path.insert(0, _Finder(name, inside))


def after_import(name: str, action: Callable[[], None]) -> None:
    """Calls ``action`` after the first import of ``name``; at once if ``name`` is imported already."""
    if name in sys.modules:
        action()
        return
    actions = [action]

    @contextmanager
    def then_act() -> Iterator[None]:
        yield
        if actions:
            actions.pop()()

    around_import(name, then_act)
