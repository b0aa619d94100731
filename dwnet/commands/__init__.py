"""The command lines: ``python -m dwnet NAME`` and ``tools/NAME.py`` run the module NAME.

A command has a docstring, which is its description; ``EXAMPLE``, the arguments of the example in its help;
``add_arguments(parser)`` and ``run(args)``. ``options/`` and the modules whose names begin with an underscore hold what
several commands share.
"""
import argparse
import ast
import importlib
import pkgutil
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from dwnet.errors import one_line


def names() -> list[str]:
    """All commands."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__)
                  if not (module.ispkg or module.name.startswith('_')))


def summary(name: str) -> str:
    """The first line of a command's docstring, which is read without importing the command."""
    tree = ast.parse(Path(__file__).with_name(f'{name}.py').read_text(encoding='utf-8'))
    return (ast.get_docstring(tree) or '').partition('\n')[0]


def start(name: str) -> None:
    """Runs a command with the arguments of this process; an import that fails ends it in one line."""
    try:
        command = importlib.import_module(f'{__name__}.{name}')
        if name != 'doctor':  # it runs where PyTorch cannot be imported
            from dwnet.engine.exit_codes import run_command
    except Exception as error:  # a broken package may raise anything
        fail(f'{name} cannot be started ({one_line(error)}); `python -m dwnet doctor` says what is missing and what to '
             'do')
    parser = argparse.ArgumentParser(
        prog=Path(sys.argv[0]).name, description=command.__doc__, epilog=f'example: {_example(name, command.EXAMPLE)}',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_arguments(parser)
    run = partial(command.run, parser.parse_intermixed_args())
    run() if name == 'doctor' else run_command(run)


def _example(name: str, arguments: str) -> str:
    """The example as it is typed in a clone, or, for ``python -m dwnet``, with or without one."""
    if sys.argv[0].startswith('python -m dwnet'):
        return f'python -m dwnet {name} {arguments}'.replace('configs/', 'dwnet::').rstrip()
    return f'python tools/{name}.py {arguments}'


def fail(reason: object) -> NoReturn:
    """Ends the process with a line and the exit code of a user's mistake."""
    print('error:', ' '.join(str(reason).split()), file=sys.stderr)
    sys.exit(2)
