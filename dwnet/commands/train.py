"""Trains any config: classification, detection or segmentation."""
from argparse import ArgumentParser, Namespace

from dwnet.demo.digits import prepare_if_missing
from dwnet.engine import Runner
from dwnet.engine.options import (
    enable_amp,
    enable_auto_scale_lr,
    enable_bf16_training,
    enable_fine_tuning,
    enable_fsdp,
    enable_log_to,
    enable_own_data,
    enable_resume,
    enable_resume_after_restart,
    enable_speed,
    start_from,
    start_with_new_heads,
)
from dwnet.engine.preflight import check_data, preflight
from dwnet.errors import UserError
from dwnet.inspect.report import report_training

from ._arguments import add_config_arguments, add_fine_tuning_options, add_speed_options
from ._config import load_config

EXAMPLE = 'configs/classification/dwnet-nano_digits.py'


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser, launched=True)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from CHECKPOINT, or from the newest one in the work dir if none is named')
    parser.add_argument('--amp', action='store_true', help='mixed precision in float16 (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the actual batch size over that of the config')
    parser.add_argument(
        '--check', action='store_true', help='look for what would stop the training after hours, and do not train')
    parser.add_argument(
        '--strategy',
        choices=('ddp', 'fsdp'),
        default='ddp',
        help='with several processes: each has the whole model (ddp), or its share of the weights (fsdp)')
    parser.add_argument(
        '--log-to', nargs='+', choices=('tensorboard', 'wandb'), default=[],
        help='write the curves for TensorBoard or Weights & Biases as well (without a network: WANDB_MODE=offline)')
    add_fine_tuning_options(parser)
    add_speed_options(parser)


def run(args: Namespace) -> None:
    cfg = load_config(args)
    if args.data_root:
        enable_own_data(cfg, args)
    check_data(cfg, 'train', 'val', prepare=prepare_if_missing)
    if source := args.load_from or cfg.get('load_from'):
        (start_with_new_heads if args.data_root else start_from)(cfg, source)
    enable_fine_tuning(cfg, args)
    if args.resume:
        enable_resume(cfg, args.resume)
    enable_resume_after_restart(cfg)
    if args.amp and args.bf16:
        raise UserError('--amp is float16 and --bf16 is bfloat16; choose one')
    if args.amp:
        enable_amp(cfg)
    if args.bf16:
        enable_bf16_training(cfg)
    if args.log_to:
        enable_log_to(cfg, args.log_to)
    enable_speed(cfg, args)
    if args.strategy == 'fsdp':
        enable_fsdp(cfg, args)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    runner = Runner.from_cfg(cfg)
    preflight(runner)
    if args.check:
        print('nothing was found that would stop this training')
    else:
        runner.train()
        if args.data_root:
            report_training(runner)
