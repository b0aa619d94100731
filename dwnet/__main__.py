"""``python -m dwnet COMMAND``."""
import argparse
import importlib.util
import sys
from pathlib import Path
from typing import NoReturn

import dwnet

TOOLS = Path(__file__).parent / '.mim/tools'  # dwnet.config_names says what lies there
OF_THE_CLONE = {'write_model_zoo'}  # works on its files


def main() -> None:
    tools = sorted({path.stem for path in TOOLS.glob('*.py')} - OF_THE_CLONE)
    parser = argparse.ArgumentParser(
        prog='python -m dwnet',
        epilog='example: python -m dwnet doctor; python -m dwnet train dwnet::classification/dwnet-nano_digits.py',
        description='DWNet for OpenMMLab')
    parser.add_argument(
        'command', choices=['doctor', 'hook', *tools],
        help="doctor: what is installed, what is missing, what to do; hook: mmcv's operators in every process of this "
        'Python; the others are the tools of this name')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='of the command; --help lists them')
    args = parser.parse_args()
    if args.command == 'doctor':
        if args.arguments:
            parser.error(f"doctor takes no arguments, got {' '.join(args.arguments)}")
        from dwnet.doctor import report
        sys.exit(1 if report() else 0)
    if dwnet.import_error is not None:
        _fail(dwnet.import_error)
    if args.command == 'hook':
        _hook(args.arguments)
        return
    sys.argv = [f'python -m dwnet {args.command}', *args.arguments]
    spec = importlib.util.spec_from_file_location(f'dwnet_{args.command}', TOOLS / f'{args.command}.py')
    tool = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(tool)
    except Exception as error:  # of what it imports; a broken package may raise anything
        _fail(f'{args.command} cannot be started ({type(error).__name__}: {error}); `python -m dwnet doctor` says what '
              'is missing and what to do')
    from dwnet.engine.cli import run_command
    run_command(tool.main)


def _fail(reason: object) -> NoReturn:
    print('error:', ' '.join(str(reason).split()), file=sys.stderr)
    sys.exit(2)


def _hook(arguments: list[str]) -> None:
    from dwnet.compat.mmcv_ops import hook
    from dwnet.errors import UserError
    parser = argparse.ArgumentParser(
        prog='python -m dwnet hook',
        description="mmcv's operators in every process of this Python, import dwnet or not",
        epilog="example: python -m dwnet hook on, then the toolboxes' own tools run with mmcv-lite")
    parser.add_argument('action', nargs='?', default='status', choices=['on', 'off', 'status'])
    action = parser.parse_args(arguments).action
    try:
        if action != 'status':
            hook.turn_on() if action == 'on' else hook.turn_off()
    except UserError as error:
        _fail(error)
    print(hook.state())


if __name__ == '__main__':
    main()
