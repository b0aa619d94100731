"""``python -m dwnet COMMAND``."""
import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m dwnet',
        epilog='example: python -m dwnet doctor',
        description='DWNet for OpenMMLab')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    commands.add_parser('doctor', help='what is installed, what is missing, what to do')
    hook = commands.add_parser(
        'hook', help="mmcv's operators in every process of this Python, import dwnet or not",
        epilog="example: python -m dwnet hook on, then the toolboxes' own tools run with mmcv-lite")
    hook.add_argument('action', nargs='?', default='status', choices=['on', 'off', 'status'])
    options = parser.parse_args()
    if options.command == 'doctor':
        from dwnet.doctor import report
        sys.exit(1 if report() else 0)
    _turn(options.action)


def _turn(action: str) -> None:
    from dwnet.compat.mmcv_ops import hook
    from dwnet.errors import UserError
    try:
        if action != 'status':
            hook.turn_on() if action == 'on' else hook.turn_off()
    except UserError as error:
        sys.exit(f'error: {error}')
    print(hook.state())


if __name__ == '__main__':
    main()
