"""Trains and scores classification, detection and segmentation on the embedded digits."""
from argparse import ArgumentParser, Namespace

from dwnet.demo import three_tasks

EXAMPLE = '--quick'


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('--work-dir', help='where everything goes (default: work_dirs/demo)')
    parser.add_argument(
        '--quick', action='store_true',
        help='train so briefly that the scores say nothing: shows that all parts work')


def run(args: Namespace) -> None:
    three_tasks.run(args.work_dir or ('work_dirs/demo-quick' if args.quick else 'work_dirs/demo'), args.quick)
