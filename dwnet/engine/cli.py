"""What the command lines share: reading a config, finding mistakes before work starts, reporting them."""
import argparse
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner as MMEngineRunner

from dwnet.errors import UserError

from .process_group import started_by

# Toolbox of a config's default_scope → the extra of ours that installs it.
TOOLBOXES = {'mmpretrain': 'cls', 'mmdet': 'det', 'mmseg': 'seg'}
# Data sets of mmpretrain that download themselves.
_SELF_FETCHED = ('CIFAR', 'MNIST', 'FashionMNIST')


def run_command(main: Callable[[], None]) -> None:
    """Runs ``main``; a mistake of the user ends it with one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.last_value = error  # as the interpreter does: other processes learn that this one has failed
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)


def make_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the arguments that train and test have in common."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f'example: {example}',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file; it says which task and which data')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dirs/NAME_OF_THE_CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change the config: train_dataloader.batch_size=8 model.backbone.with_cp=True …')
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default=started_by(),
        help='who started this process; set by tools/dist_train.sh and the like')
    # Given by the old torch.distributed.launch; the environment says the same.
    parser.add_argument('--local-rank', '--local_rank', help=argparse.SUPPRESS)
    return parser


def add_speed_options(parser: argparse.ArgumentParser) -> None:
    """Those of train and test; ``enable_speed`` does what they say."""
    parser.add_argument('--bf16', action='store_true', help='train in bfloat16, or test the backbone in it')
    parser.add_argument('--channels-last', action='store_true', help='lay out neck and head channels-last, too')
    parser.add_argument('--compile', action='store_true', help='torch.compile the backbone')


def load_config(args: argparse.Namespace) -> Config:
    """The config of the command line, with its options merged and its toolbox imported.

    Raises:
        UserError: If the file or its toolbox is missing, the file is no config, or an option sets what no
            config has.
    """
    if not Path(args.config).is_file():
        raise UserError(f'{args.config} is missing; the configs are below configs/')
    try:
        cfg = Config.fromfile(args.config)
    except ModuleNotFoundError as error:
        raise _toolbox_error(str(error.name)) from error
    except Exception as error:  # a config is Python: whatever it raises is a mistake in it
        raise UserError(f'{args.config} cannot be read: {_one_line(error)}') from error
    if args.cfg_options:
        _merge_options(cfg, args.cfg_options)
    toolbox = cfg.get('default_scope')
    if toolbox in TOOLBOXES:
        try:
            importlib.import_module(f'{toolbox}.models')
        except Exception as error:  # their version checks are assertions
            raise _toolbox_error(toolbox, _one_line(error)) from error
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = f'work_dirs/{Path(args.config).stem}'
    cfg.launcher = args.launcher
    return cfg


def _one_line(error: BaseException) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())


def _toolbox_error(toolbox: str, reason: str = 'it is not installed') -> UserError:
    extra = TOOLBOXES.get(toolbox, 'all')
    return UserError(f"this config needs {toolbox}, which cannot be imported ({reason}): "
                     f"pip install 'dwnet[{extra}]'; `python -m dwnet doctor` tells more")


def _merge_options(cfg: Config, options: dict) -> None:
    known = {*cfg, *inspect.signature(MMEngineRunner.__init__).parameters, 'sync_bn', 'runner_type',
             'find_unused_parameters', 'model_wrapper_cfg', 'activation_checkpointing', 'compile', 'tta_model',
             'tta_pipeline', 'new_heads'}
    for key in options:
        top = key.split('.')[0]
        if top not in known:
            near = difflib.get_close_matches(top, sorted(known), n=1)
            raise UserError(f'--cfg-options {key}: a config has no {top!r}'
                            + (f'; did you mean {near[0]!r}?' if near else ''))
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise UserError(f'--cfg-options: {_one_line(error)}') from error


def check_data(cfg: Config, *parts: str) -> None:
    """Looks whether the data of ``parts``, of 'train', 'val', 'test', is where the config says.

    Raises:
        UserError: If a file or folder is missing.
    """
    for part in parts:
        loader, evaluator = cfg.get(f'{part}_dataloader'), cfg.get(f'{part}_evaluator')
        paths = [*_dataset_paths((loader or {}).get('dataset'))]
        for metric in evaluator if isinstance(evaluator, list) else [evaluator or {}]:
            if metric.get('ann_file'):
                paths.append((f'{part}_evaluator.ann_file', Path(metric['ann_file'])))
        for setting, path in paths:
            if not path.exists():
                setting = setting.replace('dataset', f'{part}_dataloader.dataset', 1)
                remedy = ('`make data` makes it' if 'digits' in path.parts else
                          f'put the data there, or say where it is: --cfg-options {setting}=…')
                raise UserError(f'{path} is missing ({part} data); {remedy}')


def _dataset_paths(dataset: dict | None, setting: str = 'dataset') -> Iterator[tuple[str, Path]]:
    """The setting and the path of everything on disk that a dataset config, however nested, names."""
    if not dataset:
        return
    for key in ('dataset', 'datasets'):
        inner = dataset.get(key)
        for i, part in enumerate(inner if isinstance(inner, (list, tuple)) else [inner]):
            name = f'{setting}.{key}.{i}' if isinstance(inner, (list, tuple)) else f'{setting}.{key}'
            yield from _dataset_paths(part, name)
    root = dataset.get('data_root') or ''
    if '://' in root or str(dataset.get('type')).startswith(_SELF_FETCHED):  # on a server, or on its way
        return
    if root:
        yield f'{setting}.data_root', Path(root)
    prefix = dataset.get('data_prefix') or {}
    prefixes = prefix.items() if isinstance(prefix, dict) else [('', prefix)]
    names = [('ann_file', dataset.get('ann_file')),
             *((f'data_prefix.{key}'.rstrip('.'), value) for key, value in prefixes)]
    for key, name in names:
        if name:
            yield f'{setting}.{key}', Path(root, name)
