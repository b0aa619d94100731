"""Reads the config that a command line names; a mistake in the config ends in one line."""
import argparse
import difflib
import inspect
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner as MMEngineRunner

from dwnet.config_names import config_path
from dwnet.errors import UserError, one_line
from dwnet.toolboxes import TOOLBOXES, enter_scope, toolbox_of

# https://…, s3://…; one slash suffices, since Path keeps only one
_ADDRESS = re.compile(r'\b[a-z][a-z0-9+]+:/', re.IGNORECASE)


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config, merges ``--cfg-options`` into it, and imports the config's toolbox.

    Raises:
        UserError: If the file or the toolbox is missing, the file is no config, the file or its base is an address,
            or an option sets a key that no config has.
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
    except FileNotFoundError as error:  # a missing _base_; mmengine fetches no address
        address = _ADDRESS.search(str(error))
        raise _address_error(f'a _base_ of {args.config}') if address else UserError(
            f'{args.config} cannot be read: {one_line(error)}') from error
    except Exception as error:  # a config is Python and may raise anything
        raise UserError(f'{args.config} cannot be read: {one_line(error)}') from error
    if args.cfg_options:
        _merge_options(cfg, args.cfg_options)
    try:
        toolbox = toolbox_of(cfg)
    except ImportError as error:  # a pure-Python config imports its classes lazily
        raise _toolbox_error('packages', one_line(error)) from error
    try:
        toolbox.load()
    except Exception as error:  # the toolboxes check versions by assertions
        raise _toolbox_error(toolbox.name, one_line(error)) from error
    enter_scope(cfg)
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
