"""Draws the training curves of one or several runs: loss, learning rate, scores and time."""
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.errors import UserError
from dwnet.inspect.curves import plot, read_run
from dwnet.inspect.figure import save

EXAMPLE = 'work_dirs/dwnet-nano_digits'


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('runs', nargs='+', metavar='RUN', help='work dirs of trainings, or scalars.json files')
    parser.add_argument('--keys', nargs='+', default=[], metavar='KEY', help='draw these keys of the log instead')
    parser.add_argument('--names', nargs='+', help='names for the legend (default: those of the folders)')
    parser.add_argument('--out', help='the picture (default: curves.png in the first run)')


def run(args: Namespace) -> None:
    if args.names and len(args.names) != len(args.runs):
        raise UserError(f'--names has {len(args.names)} names for {len(args.runs)} runs')
    runs = [read_run(path, name) for path, name in zip(args.runs, args.names or [''] * len(args.runs))]
    first = Path(args.runs[0])
    out = args.out or (first.parent if first.is_file() else first) / 'curves.png'
    print(f'training curves: {save(plot(runs, args.keys), out)}')
