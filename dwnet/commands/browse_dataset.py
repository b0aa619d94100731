"""Draws a data set after augmentation: a sheet of images with labels, boxes and masks."""
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.demo.embedded import prepare_if_missing
from dwnet.engine.preflight import check_data
from dwnet.inspect.batch import browse
from dwnet.inspect.figure import save

from ._arguments import add_config_arguments
from ._config import load_config

EXAMPLE = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train', help='(default: train)')
    parser.add_argument('--number', type=int, default=16, help='images (default: 16)')
    parser.add_argument('--seed', type=int, default=0, help='another one draws other images (default: 0)')
    parser.add_argument('--out', help='the picture (default: SPLIT.png in the work dir)')


def run(args: Namespace) -> None:
    cfg = load_config(args)
    check_data(cfg, args.split, prepare=prepare_if_missing)
    figure = browse(cfg, args.split, args.number, args.seed)
    print(f"images: {save(figure, args.out or Path(cfg.work_dir, f'{args.split}.png'))}")
