"""The command lines: ``python -m dwnet NAME`` and ``tools/NAME.py`` run the module NAME of this folder.

A command's module has a docstring, which ``--help`` shows; ``EXAMPLE``, the arguments of the example below the help;
``add_arguments(parser)``; and ``run(args)``. Code that several commands share is in ``options/`` and in the modules
whose names begin with an underscore.
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
    """The first line of a command's docstring, read without importing the command."""
    tree = ast.parse(Path(__file__).with_name(f'{name}.py').read_text(encoding='utf-8'))
    return (ast.get_docstring(tree) or '').partition('\n')[0]


def start(name: str) -> None:
    """Runs a command with the arguments of this process. A failed import ends the process with one line."""
    try:
        command = importlib.import_module(f'{__name__}.{name}')
        if name != 'doctor':  # the doctor also runs where PyTorch cannot be imported
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
    """The example with ``tools/`` of a clone, or with ``python -m dwnet``, which needs no clone."""
    if sys.argv[0].startswith('python -m dwnet'):
        return f'python -m dwnet {name} {arguments}'.replace('configs/', 'dwnet::').rstrip()
    return f'python tools/{name}.py {arguments}'


def fail(reason: object) -> NoReturn:
    """Prints one line and ends the process with the exit code of a user's mistake."""
    print('error:', ' '.join(str(reason).split()), file=sys.stderr)
    sys.exit(2)
