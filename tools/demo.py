#!/usr/bin/env python
"""Trains and scores classification, detection and segmentation on the embedded digits."""
import argparse

import dwnet  # noqa: F401  before the toolboxes, for mmcv's operators
from dwnet.demo.three_tasks import run
from dwnet.engine.cli import as_called, run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=as_called('example: python tools/demo.py --quick'))
    parser.add_argument('--work-dir', help='where everything goes (default: work_dirs/demo)')
    parser.add_argument(
        '--quick', action='store_true',
        help='train so briefly that the scores say nothing: shows that all parts work')
    args = parser.parse_args()
    run(args.work_dir or ('work_dirs/demo-quick' if args.quick else 'work_dirs/demo'), args.quick)


if __name__ == '__main__':
    run_command(main)
