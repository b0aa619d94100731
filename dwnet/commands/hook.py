"""Gives mmcv's operators to every process of this Python, with or without an import of dwnet."""
from argparse import ArgumentParser, Namespace

from dwnet.compat.mmcv_ops import hook

EXAMPLE = "on, then the toolboxes' own tools run with mmcv-lite"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('action', nargs='?', default='status', choices=['on', 'off', 'status'])


def run(args: Namespace) -> None:
    if args.action != 'status':
        hook.turn_on() if args.action == 'on' else hook.turn_off()
    print(hook.state())
