"""Reads the config that a command line names; a mistake in the config ends in one line."""
import argparse
import difflib
import inspect
import os
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner as MMEngineRunner

from dwnet.config_names import config_path
from dwnet.errors import UserError, one_line
from dwnet.toolboxes import TOOLBOXES, enter_scope, toolbox_of
from dwnet.toolboxes.base import Toolbox

from ._cfg_options import merge_options

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
    install = TOOLBOXES.get(toolbox, Toolbox()).install_command()
    return UserError(f'this config needs {toolbox}, which cannot be imported ({reason}): {install}; '
                     '`python -m dwnet doctor` tells more')


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
    if 'data_root' in options:
        _move_data(cfg, str(options['data_root']))
    try:
        merge_options(cfg, options)
    except Exception as error:
        raise UserError(f'--cfg-options: {one_line(error)}') from error


def _move_data(cfg: Config, root: str) -> None:
    """Lets ``--cfg-options data_root=ROOT`` count: while a config is read, its other paths are made of data_root."""
    before = cfg.get('data_root')
    if not before or not isinstance(before, str):
        return
    for key in cfg:
        if key.endswith(('_dataloader', '_evaluator')) and cfg[key]:
            _move_paths(cfg[key], before.rstrip('/'), root)


def _move_paths(part: Any, before: str, root: str) -> None:
    """Changes the paths at and below ``before`` in a part of a config to paths at and below ``root``."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if isinstance(value, str) and f'{value}/'.startswith(f'{before}/'):
            part[key] = os.path.join(root, value[len(before) + 1:])
        elif isinstance(value, (dict, list)):
            _move_paths(value, before, root)
