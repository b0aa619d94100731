"""The arguments that several commands have."""
import argparse

import torch
from mmengine.config import DictAction

from dwnet.engine.distributed.process_group import started_by
from dwnet.errors import UserError, one_line


def add_config_arguments(parser: argparse.ArgumentParser, launched: bool = False) -> None:
    """Those that the commands for a config have in common; ``load_config`` takes what they parse.

    Args:
        parser: What they are added to.
        launched: Whether several processes can work together, and a launcher may start them.
    """
    parser.add_argument('config', help='config file, or dwnet::TASK/NAME.py; it says which task and which data')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dirs/NAME_OF_THE_CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change the config: train_dataloader.batch_size=8 model.backbone.with_cp=True …')
    if not launched:
        parser.set_defaults(launcher='none')
        return
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default=started_by(),
        help='who started this process; set by dist_train.sh and the like')
    # Given by the old torch.distributed.launch; the environment says the same.
    parser.add_argument('--local-rank', '--local_rank', help=argparse.SUPPRESS)


def add_image_arguments(parser: argparse.ArgumentParser, number: str = '+') -> None:
    """Those of the commands that show a model images; ``load_config`` takes what they parse.

    Args:
        parser: What they are added to.
        number: How many images, as argparse's ``nargs``.
    """
    parser.add_argument(
        'images', nargs=number, metavar='IMAGES',
        help="image files, folders (with all that is below), patterns such as 'photos/**/*.jpg'")
    parser.add_argument('--config', required=True, help='config file of the model')
    parser.add_argument('--checkpoint', help='its weights, .pth or .safetensors')
    parser.add_argument('--out', help='folder of what is written (default: work_dirs/NAME_OF_THE_CONFIG/…)')
    parser.add_argument('--device', help="'cpu', 'cuda', 'cuda:1' … (default: a GPU if there is one)")
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='change the config: model.test_cfg.rcnn.score_thr=.1 …')
    parser.set_defaults(work_dir=None, launcher='none')


def chosen_device(name: str | None) -> str:
    """``--device``; by default a GPU if there is one.

    Raises:
        UserError: If it is not there.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {name} is not there: {one_line(error)}') from error
    return name


def add_speed_options(parser: argparse.ArgumentParser) -> None:
    """Those of train and test; ``enable_speed`` does what they say."""
    parser.add_argument('--bf16', action='store_true', help='train in bfloat16, or test the backbone in it')
    parser.add_argument('--channels-last', action='store_true', help='lay out neck and head channels-last, too')
    parser.add_argument('--compile', action='store_true', help='torch.compile the backbone')


def add_fine_tuning_options(parser: argparse.ArgumentParser) -> None:
    """Those of train; ``enable_own_data`` and ``enable_fine_tuning`` do what they say."""
    group = parser.add_argument_group('fine-tuning')
    group.add_argument(
        '--data-root', metavar='ROOT',
        help="own data in the place of the config's: ROOT/train/CLASS/*.jpg and ROOT/val, or ROOT/CLASS; COCO files in "
        'ROOT/annotations; or ROOT/images and ROOT/masks. Classes, heads, batches and epochs are set to suit them')
    group.add_argument('--load-from', metavar='FILE', help='weights to start from; with --data-root heads for other '
                       'classes begin anew')
    group.add_argument('--epochs', type=int, metavar='N', help='another length, the schedule stretched with it '
                       "(default with --data-root: the config's, at most 50)")
    group.add_argument('--lr', type=float, help='the peak of the learning rate')
    group.add_argument('--layer-decay', type=float, metavar='RATE',
                       help='learning rate × RATE from block to block towards the image, such as 0.8')
    group.add_argument('--freeze', type=int, metavar='N', help='keep the stem and the first N of the four stages')
    group.add_argument('--ema', action='store_true', help='validate and keep a moving average of the weights')
    group.add_argument('--early-stopping', type=int, metavar='N',
                       help='stop when N validations in a row were no better than the best')
