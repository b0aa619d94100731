"""Trains any config: classification, detection or segmentation."""
from argparse import ArgumentParser, Namespace

from dwnet.demo.embedded import prepare_if_missing
from dwnet.engine import Runner
from dwnet.engine.preflight import check_data, preflight
from dwnet.inspect.report import report_training

from ._arguments import add_config_arguments, add_speed_arguments, check_writable
from ._config import load_config
from .options import Option, apply_options
from .options.balance import enable_balance
from .options.fine_tuning import (
    enable_auto_scale_lr,
    enable_early_stopping,
    enable_ema,
    enable_epochs,
    enable_freeze,
    enable_layer_decay,
    enable_own_data,
    set_lr,
)
from .options.running import (
    enable_amp,
    enable_bf16_training,
    enable_channels_last,
    enable_compile,
    enable_fsdp,
    enable_log_to,
)
from .options.weights import enable_load_from, enable_resume, resume_after_restart

EXAMPLE = 'configs/classification/dwnet-nano_digits.py'
# In the order in which the options change the config
OPTIONS = (
    Option('--load-from', enable_load_from, with_values_of=('--data-root', )),
    Option('--balance', enable_balance, with_values_of=('--data-root', )),
    Option('--epochs', enable_epochs, with_values_of=('--data-root', )),
    Option('--lr', set_lr),
    Option('--layer-decay', enable_layer_decay),  # needs the learning rate of --lr
    Option('--freeze', enable_freeze, with_values_of=('--resume', )),  # needs the weights of --load-from
    Option('--ema', enable_ema),
    Option('--early-stopping', enable_early_stopping),
    Option('--resume', enable_resume),  # replaces the checkpoint of --load-from
    Option('--amp', enable_amp, conflicts=('--bf16', )),
    Option('--bf16', enable_bf16_training),
    Option('--log-to', enable_log_to),
    Option('--channels-last', enable_channels_last),
    Option('--compile', enable_compile),
    # checks the optimizer wrapper and the hooks, which --amp, --bf16 and --ema change
    Option('--strategy fsdp', enable_fsdp, conflicts=('--compile', '--channels-last')),
    Option('--auto-scale-lr', enable_auto_scale_lr),
)


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
        '--log-to', nargs='+', choices=('tensorboard', 'wandb'),
        help='write the curves for TensorBoard or Weights & Biases as well (without a network: WANDB_MODE=offline)')
    group = parser.add_argument_group('fine-tuning')
    group.add_argument(
        '--data-root', metavar='ROOT', action='append',
        help="own data in the place of the config's, such as ROOT/CLASS/*.jpg, COCO files, or ROOT/images and "
        'ROOT/masks; classes, heads, batches and epochs are set to suit them. Given several times: the roots are '
        'joined, and each is scored, too')
    group.add_argument('--data-format', metavar='FORM', help='insist on a form of the data, such as coco or folders '
                       '(default: the first that is there)')
    group.add_argument('--load-from', metavar='FILE', help='weights to start from; with --data-root heads for other '
                       'classes begin anew')
    group.add_argument('--balance', action='store_true', help='draw images with rare classes more often')
    group.add_argument('--epochs', type=int, metavar='N', help='another length, the schedule stretched with it '
                       "(default with --data-root: the config's, at most 50)")
    group.add_argument('--lr', type=float, help='the peak of the learning rate')
    group.add_argument('--layer-decay', type=float, metavar='RATE',
                       help='learning rate × RATE from block to block towards the image, such as 0.8')
    group.add_argument('--freeze', type=int, metavar='N', help='keep the stem and the first N of the four stages')
    group.add_argument('--ema', action='store_true', help='validate and keep a moving average of the weights')
    group.add_argument('--early-stopping', type=int, metavar='N',
                       help='stop when N validations in a row were no better than the best')
    add_speed_arguments(parser)


def run(args: Namespace) -> None:
    cfg = load_config(args)
    check_writable('--work-dir', cfg.work_dir)
    if args.data_root:
        enable_own_data(cfg, args)
    check_data(cfg, 'train', 'val', prepare=prepare_if_missing)
    args.load_from = args.load_from or cfg.get('load_from')
    apply_options(OPTIONS, cfg, args)
    resume_after_restart(cfg)
    runner = Runner.from_cfg(cfg)
    preflight(runner)
    if args.check:
        print('nothing was found that would stop this training')
        return
    runner.train()
    if args.data_root:
        report_training(runner)
