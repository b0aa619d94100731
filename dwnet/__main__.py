"""``python -m dwnet COMMAND``."""
import argparse
import importlib
import sys

import dwnet
from dwnet import commands


def main() -> None:
    lines = '\n'.join(f'  {name:20}{commands.summary(name)}' for name in commands.names())
    parser = argparse.ArgumentParser(
        prog='python -m dwnet',
        description=f'DWNet for OpenMMLab\n\ncommands:\n{lines}',
        epilog='example: python -m dwnet train dwnet::classification/dwnet-nano_digits.py',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('command', metavar='COMMAND', choices=commands.names(), help='one of the above')
    parser.add_argument('arguments', metavar='…', nargs=argparse.REMAINDER, help='of the command; --help lists them')
    args = parser.parse_args()
    sys.argv = [f'python -m dwnet {args.command}', *args.arguments]
    try:
        if not hasattr(dwnet, 'DWNet'):
            importlib.reload(dwnet)  # which has left out the rest until here
    except ImportError as error:
        if args.command != 'doctor':
            commands.fail(error)
    commands.start(args.command)


if __name__ == '__main__':
    main()
