"""The rooms of the package lie in layers: an import leads down or stays in its room, and none comes back."""
import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'dwnet'

# The rooms from top to bottom, each with the names, below dwnet, that its modules begin with. The empty name is the
# package itself, whose import sets up what the toolboxes find by name.
LAYERS = (
    ('commands', ('', '__main__', 'commands')),
    ('demo', ('demo', )),
    ('deploy', ('deploy', )),
    ('inspect', ('inspect', )),
    ('apis', ('apis', )),
    ('engine', ('engine', )),
    ('toolboxes', ('toolboxes', )),
    ('data', ('data', )),
    ('models', ('models', )),
    ('ops', ('ops', )),
    ('weights', ('weights', 'checkpoint')),
    ('compat', ('compat', )),
    ('ground', ('registry', 'config_names', 'schedules', 'errors', 'version')),
)
# (module, what it imports from above it), both below dwnet → why it may
EXCEPTIONS: dict[tuple[str, str], str] = {}


def name_of(file: Path) -> str:
    """The module's name below dwnet: ``'engine.runner'``, of a package ``'engine'``, of dwnet itself ``''``."""
    parts = file.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob('*.py')) if '.mim' not in file.parts}


def room_of(module: str) -> str:
    return next(room for room, names in LAYERS if module.partition('.')[0] in names)


def targets(node: ast.Import | ast.ImportFrom, module: str) -> Iterator[str]:
    """The modules of dwnet that a statement imports, by their names below dwnet."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top, _, name = alias.name.partition('.')
            if top == 'dwnet':
                yield name
        return
    if node.level:
        parts = module.split('.') if module else []
        up = node.level - (FILES[module].name == '__init__.py')
        base = '.'.join([*parts[:len(parts) - up], *filter(None, [node.module])])
    else:
        top, _, base = (node.module or '').partition('.')
        if top != 'dwnet':
            return
    for alias in node.names:  # a module, or something of one
        name = f'{base}.{alias.name}'.lstrip('.')
        yield name if name in FILES else base


def imports(module: str) -> set[str]:
    """What a module imports of dwnet, inside functions, too."""
    tree = ast.parse(FILES[module].read_text(encoding='utf-8'))
    return {target for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))
            for target in targets(node, module)} - {module}


IMPORTS = {module: imports(module) for module in FILES}
ROOMS = [room for room, _ in LAYERS]


def test_every_module_has_a_room():
    listed = {name for _, names in LAYERS for name in names}
    assert {module.partition('.')[0] for module in FILES} == listed


def test_the_page_has_the_order():
    page = (ROOT / 'docs/design.md').read_text(encoding='utf-8')
    assert ' → '.join(ROOMS) in ' '.join(page.split())


def test_no_import_leads_up():
    upward = {(module, target) for module, found in IMPORTS.items() for target in found
              if ROOMS.index(room_of(target)) < ROOMS.index(room_of(module))}
    assert not upward - EXCEPTIONS.keys(), 'a module, and what it imports from above it'
    assert not EXCEPTIONS.keys() - upward, 'exceptions that are no longer needed: remove them'
    assert all(EXCEPTIONS.values()), 'an exception has a reason'


def test_no_two_modules_import_each_other():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        raise AssertionError(' → '.join(f'dwnet.{module}' for module in reversed(error.args[1]))) from None


def test_only_commands_import_the_demo():
    assert not [module for module, found in IMPORTS.items() if room_of(module) not in ('commands', 'demo')
                and any(room_of(target) == 'demo' for target in found)]


def test_the_imports_are_read():
    """The test above would pass if it saw no imports."""
    assert {'toolboxes.checked', 'weights.loading', 'registry', 'engine.hooks.non_finite'} <= IMPORTS['engine.runner']
    assert 'toolboxes.mmdet.coco' in IMPORTS['toolboxes.mmdet'], 'inside a function'
    assert 'models.dwnet' in IMPORTS['models'] and 'ops' in IMPORTS['models.mixers']
    assert {'compat', 'toolboxes.timm_registration', 'weights.safety', 'models'} <= IMPORTS['']
