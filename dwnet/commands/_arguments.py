"""Arguments that several commands share."""
import argparse
import tempfile
from pathlib import Path

import torch

from dwnet.engine.distributed.process_group import started_by
from dwnet.errors import UserError, one_line

from ._cfg_options import HELP, CfgOptions


def add_config_arguments(parser: argparse.ArgumentParser, launched: bool = False) -> None:
    """Adds what ``load_config`` reads; ``launched`` if a launcher may start the command in several processes."""
    parser.add_argument('config', help='config file, or dwnet::TASK/NAME.py; the config sets the task and the data')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dirs/NAME_OF_THE_CONFIG)')
    _add_cfg_options(parser, 'train_dataloader.batch_size=8 model.backbone.with_cp=True')
    if not launched:
        parser.set_defaults(launcher='none')
        return
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default=started_by(),
        help='who started this process; set by dist_train.sh and the like')
    # torch.distributed.launch passes it; ignored, since LOCAL_RANK in the environment says the same
    parser.add_argument('--local-rank', '--local_rank', help=argparse.SUPPRESS)


def add_image_arguments(parser: argparse.ArgumentParser, number: str = '+') -> None:
    """Adds what commands need that show images to a model; ``number`` of images is argparse's ``nargs``."""
    parser.add_argument(
        'images', nargs=number, metavar='IMAGES',
        help="image files, folders (with all that is below), patterns such as 'photos/**/*.jpg'")
    add_model_arguments(parser)
    parser.add_argument('--out', help='folder of what is written (default: work_dirs/NAME_OF_THE_CONFIG/…)')


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what commands need that run a model."""
    parser.add_argument('--config', required=True, help='config file of the model')
    parser.add_argument('--checkpoint', help='its weights, .pth or .safetensors')
    parser.add_argument('--device', help="'cpu', 'cuda', 'cuda:1' … (default: a GPU if there is one)")
    _add_cfg_options(parser, 'model.test_cfg.rcnn.score_thr=.1')
    parser.set_defaults(work_dir=None, launcher='none')


def _add_cfg_options(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help=f'change the config: {example} …; {HELP}')


def chosen_device(name: str | None) -> str:
    """The device of ``--device``; by default a GPU if there is one.

    Raises:
        UserError: If PyTorch cannot use the device.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {name} is not there: {one_line(error)}') from error
    return name


def check_writable(flag: str, folder: str | Path) -> None:
    """Makes a folder and tries to write into it, before the work whose results it is for.

    Raises:
        UserError: If nothing can be written there; ``flag`` names another folder.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))
    except OSError as error:
        raise UserError(f'{folder} cannot be written ({error.strerror}): make room, or name another folder by '
                        f'{flag}') from error


def add_slice_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for large images that test and infer share."""
    parser.add_argument(
        '--slice', type=int, metavar='N',
        help='for small objects in large images: predict overlapping tiles of N×N pixels, too, and join the objects; a '
        'segmentor sees the tiles alone')
    parser.add_argument(
        '--overlap', type=float, metavar='F', help='the fraction of a side that tiles share (default: 0.2)')


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for precision and speed that train and test share."""
    parser.add_argument('--bf16', action='store_true', help='train in bfloat16, or test the backbone in it')
    parser.add_argument('--channels-last', action='store_true', help='lay out neck and head channels-last, too')
    parser.add_argument('--compile', action='store_true', help='torch.compile the backbone')
