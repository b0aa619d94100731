"""Every private name of another package is in the table, and still there in the installed version."""
import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from dwnet.compat.private_names import PRIVATE_NAMES

LISTED = {name for _, names, _ in PRIVATE_NAMES for name in names.split()}
PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmaction', 'mmocr', 'timm', 'torch', 'torchvision')
# strings that look like one: the end of a key of a config, and what NumPy's pickles call
NAMED_TUPLES = {'_replace', '_asdict', '_fields'}  # public in spite of their names
OTHER_STRINGS = {'_dataloader', '_evaluator', '_kpts', '_reconstruct'}


def is_private(name: str) -> bool:
    return re.match(r'_[a-z]', name, re.IGNORECASE) is not None


def _defined_in(tree: ast.Module) -> set[str]:
    """Names of a file's functions, classes and variables, and of what it puts on ``self``."""
    nodes = list(ast.walk(tree))
    return ({node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
            | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            | {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
               and ast.unparse(node.value) in ('self', 'cls')})


FILES = [path for path in sorted((ROOT / 'dwnet').rglob('*.py')) if '.mim' not in path.parts]
DEFINED = set().union(*(_defined_in(ast.parse(path.read_text())) for path in FILES))  # a base class may be elsewhere


@pytest.mark.parametrize('owner, name, use', [
    (owner, name, use) for owner, names, use in PRIVATE_NAMES for name in names.split()],
    ids=lambda value: value if ' ' not in value else '')
def test_the_installed_version_has_the_name(owner, name, use):
    module, _, attribute = owner.partition(':')
    if module.startswith('torch.ops'):
        importlib.import_module('torchvision')
        holder = getattr(importlib.import_module('torch').ops, module.rpartition('.')[2])
    else:
        holder = pkgutil.resolve_name(owner if attribute else f'{module}:')
    sources = getattr(holder, '__mro__', (holder, )) if attribute else ()
    in_source = any(re.search(rf'\b{name}\b', inspect.getsource(part)) for part in sources if part is not object)
    assert hasattr(holder, name) or in_source, f'{owner} has no {name}; dwnet uses it: {use}'


def test_the_table_lists_what_the_package_uses():
    missing = {f'{path.relative_to(ROOT)}:{line}: {name}' for path in FILES
               for line, name in used_names(path) if name not in LISTED}
    assert not missing, 'add them to dwnet/compat/private_names.py'


def test_the_table_lists_nothing_else():
    text = ''.join(path.read_text() for path in FILES if path.name != 'private_names.py')
    text = text.replace('_is_mkldnn_{name}_supported', '_is_mkldnn_bf16_supported _is_mkldnn_fp16_supported')
    assert not {name for name in LISTED if not re.search(rf'\b{name}\b', text)}


@pytest.mark.parametrize('code, names', [
    ('from torch import _a', ['_a']), ('import torch._b.c', ['_b']), ('from timm._c import d', ['_c']),
    ('x._d.e()', ['_d']), ('getattr(x, "_ee")', ['_ee']), ('from dwnet._f import g', []),
    ('import os; os._exit(1)', []), ('def _g(): x._g()', []), ('class A:\n def f(self): self._h = self._i', ['_i']),
    ('from mmengine.hooks import Hook\nclass A(Hook):\n def _is_ours(self): pass', []),
    ('from mmengine.runner import Runner\nclass A(Runner):\n def _log_env(self): self._resume = 1',
     ['_log_env', '_resume'])])
def test_what_counts_as_a_use(code, names, tmp_path):
    (tmp_path / 'a.py').write_text(code)
    assert sorted({name for _, name in used_names(tmp_path / 'a.py')}) == names


def used_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name: private names of other packages that a file uses, and those it replaces in a subclass."""
    tree = ast.parse(path.read_text())
    inside_strings = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    own = _defined_in(tree)
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) != 'os':
            ours = own | DEFINED if ast.unparse(node.value) in ('self', 'cls') else own
            names = [node.attr] if node.attr not in ours else []
        elif isinstance(node, ast.ImportFrom) and not node.level and not node.module.startswith('dwnet'):
            names = [*node.module.split('.'), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = '.'.join(alias.name for alias in node.names).split('.')
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside_strings:
            names = re.findall(r'^_[a-z]\w*[a-z]$', node.value) if node.value not in OTHER_STRINGS else []
        elif isinstance(node, ast.ClassDef):
            yield from _names_of_bases(node, tree)
        yield from ((node.lineno, name) for name in names if is_private(name) and name not in NAMED_TUPLES)


def _names_of_bases(node: ast.ClassDef, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Private names that a class shares with a base class of another package: methods and ``self._name``."""
    sources = [inspect.getsource(kind) for base in node.bases for kind in _lineage(ast.unparse(base), tree)
               if kind.__module__.partition('.')[0] in PACKAGES]
    for part in ast.walk(node):
        name = (part.name if isinstance(part, ast.FunctionDef) else
                part.attr if isinstance(part, ast.Attribute) and ast.unparse(part.value) in ('self', 'super()') else '')
        if is_private(name) and any(re.search(rf'(def |self\.){name}\b', source) for source in sources):
            yield part.lineno, name


def _lineage(base: str, tree: ast.Module) -> tuple[type, ...]:
    """The classes behind the name of a base class, by the imports of its file."""
    first, *rest = base.split('.')
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == first:
                    found = getattr(importlib.import_module(node.module), alias.name, None)
                    for name in rest:
                        found = getattr(found, name, None)
                    return found.__mro__ if inspect.isclass(found) else ()
    return ()
