"""Scores a checkpoint on the test set of its config: top-1 and top-5, box and mask AP, or mIoU."""
from argparse import ArgumentParser, Namespace

from dwnet.demo.digits import prepare_if_missing
from dwnet.engine import Runner
from dwnet.engine.options import (
    enable_bf16_testing,
    enable_deploy,
    enable_out,
    enable_show_dir,
    enable_speed,
    enable_tta,
    set_checkpoint,
)
from dwnet.engine.preflight import check_data
from dwnet.engine.scores import report_scores

from ._arguments import add_config_arguments, add_speed_options
from ._config import load_config

EXAMPLE = 'configs/classification/dwnet-nano_digits.py work_dirs/dwnet-nano_digits/epoch_10.pth'


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser, launched=True)
    parser.add_argument('checkpoint', help='.pth file')
    parser.add_argument('--show-dir', help='save a picture of each prediction in this folder')
    parser.add_argument(
        '--out', help='save the predictions: a .pkl file (classification, detection) or a folder of '
        'label images (segmentation)')
    parser.add_argument('--deploy', action='store_true', help='fold the BatchNorms: the same scores, faster')
    parser.add_argument(
        '--tta', action='store_true', help="test-time augmentation: the config's, or each image with its mirror image")
    add_speed_options(parser)


def run(args: Namespace) -> None:
    cfg = load_config(args)
    check_data(cfg, 'test', prepare=prepare_if_missing)
    set_checkpoint(cfg, args.checkpoint)
    if args.show_dir:
        enable_show_dir(cfg, args.show_dir)
    if args.out:
        enable_out(cfg, args.out)
    if args.deploy:
        enable_deploy(cfg)
    if args.bf16:
        enable_bf16_testing(cfg)
    enable_speed(cfg, args)
    if args.tta:
        enable_tta(cfg)
    runner = Runner.from_cfg(cfg)
    report_scores(runner, runner.test())
