#!/usr/bin/env python
"""Draws a data set after augmentation, as the network gets it: a sheet of images with labels, boxes and masks."""
from pathlib import Path

import dwnet  # noqa: F401  before the toolboxes, for mmcv's operators
from dwnet.demo.digits import prepare_if_missing
from dwnet.engine.cli import load_config, make_parser, run_command
from dwnet.engine.preflight import check_data
from dwnet.inspect.batch import browse
from dwnet.inspect.figure import save


def main() -> None:
    parser = make_parser(
        __doc__, 'python tools/browse_dataset.py configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='(default: train)')
    parser.add_argument('--number', type=int, default=16, help='images (default: 16)')
    parser.add_argument('--seed', type=int, default=0, help='another one draws other images (default: 0)')
    parser.add_argument('--out', help='the picture (default: SPLIT.png in the work dir)')
    args = parser.parse_args()
    cfg = load_config(args)
    check_data(cfg, args.split, prepare=prepare_if_missing)
    figure = browse(cfg, args.split, args.number, args.seed)
    print(f"images: {save(figure, args.out or Path(cfg.work_dir, f'{args.split}.png'))}")


if __name__ == '__main__':
    run_command(main)
