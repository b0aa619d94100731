"""What the command lines share: reading a config, finding mistakes before work starts, reporting them."""
import argparse
import difflib
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner as MMEngineRunner
from torch.distributed.elastic.multiprocessing.errors import record

from dwnet.config_names import config_path
from dwnet.errors import UserError, one_line
from dwnet.toolboxes import TOOLBOXES, toolbox_of

from .distributed.process_group import started_by
from .hooks.preemption import EXIT_CODE, Preempted

# https://…, s3://…, also with the slashes that a path loses
_ADDRESS = re.compile(r'\b[a-z][a-z0-9+]+:/', re.IGNORECASE)


def run_command(main: Callable[[], None]) -> None:
    """Runs ``main``; a mistake of the user ends it with one line and exit code 2.

    Of several processes, the first that fails has its error in the launcher's last words.
    """
    # to find the toolboxes' configs mmengine imports what setup.py keeps there (open-mmlab/mmengine#1676)
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
    try:
        record(main)()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.last_value = error  # as the interpreter does: other processes learn that this one has failed
        sys.exit(2)
    except Preempted as error:
        print(error, file=sys.stderr)
        if error.alone:
            sys.last_value = error
        sys.exit(EXIT_CODE)
    except RuntimeError as error:
        if 'DataLoader worker (pid' not in str(error):
            raise
        print(f'error: {one_line(error)}: a worker ends so when RAM or shared memory runs out (df -h /dev/shm; in a '
              'container: --shm-size); take fewer, --cfg-options train_dataloader.num_workers=…, or smaller batches',
              file=sys.stderr)
        sys.last_value = error
        sys.exit(1)
    except KeyboardInterrupt as error:
        print('interrupted', file=sys.stderr)
        sys.last_value = error
        sys.exit(130)


def make_parser(description: str, example: str, launched: bool = False) -> argparse.ArgumentParser:
    """A parser with the arguments that the tools for a config have in common.

    Args:
        description: What the tool does.
        example: A command.
        launched: Whether several processes can work together, and a launcher may start them.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=as_called(f'example: {example}'),
        formatter_class=argparse.RawDescriptionHelpFormatter)
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
        return parser
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default=started_by(),
        help='who started this process; set by dist_train.sh and the like')
    # Given by the old torch.distributed.launch; the environment says the same.
    parser.add_argument('--local-rank', '--local_rank', help=argparse.SUPPRESS)
    return parser


def as_called(example: str) -> str:
    """An example for a clone, as it is typed where ``python -m dwnet`` runs the tools, with or without one."""
    if not sys.argv[0].startswith('python -m dwnet'):
        return example
    return re.sub(r'python tools/(\w+)\.py', r'python -m dwnet \1', example).replace('configs/', 'dwnet::')


def add_image_arguments(parser: argparse.ArgumentParser, number: str = '+') -> None:
    """Those of the tools that show a model images; ``load_config`` takes what they parse.

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


def load_config(args: argparse.Namespace) -> Config:
    """The config of the command line, with its options merged and its toolbox imported.

    Raises:
        UserError: If the file or its toolbox is missing, the file is no config, it or its base is an address, or
            an option sets what no config has.
    """
    if _ADDRESS.match(args.config):
        raise _address_error(args.config)
    args.config = config_path(args.config)
    if not Path(args.config).is_file():
        raise UserError(f'{args.config} is missing; those of this project have names such as '
                        'dwnet::classification/dwnet-nano_digits.py')
    try:
        cfg = Config.fromfile(args.config)
    except ModuleNotFoundError as error:
        raise _toolbox_error(str(error.name)) from error
    except FileNotFoundError as error:  # of a base; mmengine fetches none
        address = _ADDRESS.search(str(error))
        raise _address_error(f'a _base_ of {args.config}') if address else UserError(
            f'{args.config} cannot be read: {one_line(error)}') from error
    except Exception as error:  # a config is Python: whatever it raises is a mistake in it
        raise UserError(f'{args.config} cannot be read: {one_line(error)}') from error
    if args.cfg_options:
        _merge_options(cfg, args.cfg_options)
    try:
        toolbox = toolbox_of(cfg)
    except ImportError as error:  # a pure-Python config imports its classes when they are asked for
        raise _toolbox_error('packages', one_line(error)) from error
    try:
        toolbox.load()
    except Exception as error:  # their version checks are assertions
        raise _toolbox_error(toolbox.name, one_line(error)) from error
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'work_dirs/{Path(args.config).stem}'
    cfg.launcher = args.launcher
    return cfg


def _address_error(what: str) -> UserError:
    return UserError(f'{what} is an address, and none is fetched: a config is Python and may do all that you may. '
                     'Download it, read it, and name the file; trust configs as you would programs')


def _toolbox_error(toolbox: str, reason: str = 'it is not installed') -> UserError:
    extra = TOOLBOXES[toolbox].extra if toolbox in TOOLBOXES else 'all'
    return UserError(f"this config needs {toolbox}, which cannot be imported ({reason}): "
                     f"pip install 'dwnet[{extra}]'; `python -m dwnet doctor` tells more")


def _merge_options(cfg: Config, options: dict) -> None:
    known = {*cfg, *inspect.signature(MMEngineRunner.__init__).parameters, 'sync_bn', 'runner_type',
             'find_unused_parameters', 'model_wrapper_cfg', 'activation_checkpointing', 'compile', 'tta_model',
             'tta_pipeline', 'new_heads', 'keep_seg_logits'}
    for key in options:
        top = key.split('.')[0]
        if top not in known:
            near = difflib.get_close_matches(top, sorted(known), n=1)
            raise UserError(f'--cfg-options {key}: a config has no {top!r}'
                            + (f'; did you mean {near[0]!r}?' if near else ''))
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise UserError(f'--cfg-options: {one_line(error)}') from error
