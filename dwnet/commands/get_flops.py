"""Counts the parameters and multiply-adds of a config's model, stage by stage."""
from argparse import ArgumentParser, Namespace

from rich.console import Console
from rich.table import Table

from dwnet.errors import UserError, one_line
from dwnet.inspect.flops import DETECTIONS, PROPOSALS, count
from dwnet.registry import type_name
from dwnet.toolboxes import known_toolbox_of

from ._arguments import add_config_arguments
from ._config import load_config

EXAMPLE = 'configs/classification/dwnet-tiny_in1k.py --shape 224 224'


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('H', 'W'),
        help='size of the image (default: that of the published figures, 224 224 for classification, 800 1280 for '
        'detection, 512 2048 for segmentation)')


def run(args: Namespace) -> None:
    cfg = load_config(args)
    height, width = args.shape or known_toolbox_of(cfg, 'get_flops without --shape').image_shape
    try:
        parts = count(cfg, (height, width))
    except Exception as error:  # some heads need more than feature maps
        raise UserError(f'a {type_name(cfg.model)} cannot be counted part by part: {one_line(error)[:200]}') from error
    macs = sum(part.macs for part in parts)
    print(f'{args.config}, one image of {height}×{width}')
    table = Table('part')
    for column in ('parameters', 'G multiply-adds', 'share'):
        table.add_column(column, justify='right')
    for part in parts:
        table.add_row(part.name, f'{part.parameters:,}', f'{part.macs / 1e9:.3f}', f'{part.macs / macs:.1%}')
    table.add_section()
    table.add_row('all', f'{sum(part.parameters for part in parts):,}', f'{macs / 1e9:.3f}', '')
    Console().print(table)
    print('Counted: convolutions and matrix products, and the prediction and application of dynamic kernels.')
    if any(part.name.startswith('roi_head') for part in parts):
        print(f'As published: each box head on {PROPOSALS} proposals, each mask head on {DETECTIONS} detections.')
