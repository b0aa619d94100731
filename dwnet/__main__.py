"""``python -m dwnet COMMAND``."""
import argparse
import runpy
import sys
from pathlib import Path

TOOLS = Path(__file__).parent / '.mim/tools'  # dwnet.hub says what lies there
OF_THE_CLONE = {'demo', 'write_model_zoo'}  # work on its files


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
    if args.command == 'hook':
        _hook(args.arguments)
        return
    sys.argv = [f'python -m dwnet {args.command}', *args.arguments]
    runpy.run_path(str(TOOLS / f'{args.command}.py'), run_name='__main__')


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
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    print(hook.state())


if __name__ == '__main__':
    main()
