"""Options for precision, speed and processes, and for what a training or a test writes."""
import copy
import importlib.util
import os
import shutil
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS, VISBACKENDS
from mmengine.visualization import TensorboardVisBackend, WandbVisBackend

from dwnet.config_names import script
from dwnet.errors import UserError
from dwnet.inspect.show import ShowHook
from dwnet.registry import class_of, is_a, type_name
from dwnet.toolboxes import toolbox_of
from dwnet.toolboxes.pixels import reader_of

from . import add_hook, has_dwnet

LEAST_TILE = 32  # pixels; a smaller tile is a single place of the backbone's last maps
OVERLAP, MOST_OVERLAP = .2, .9  # of the tiles' sides


def enable_amp(cfg: Config) -> None:
    """``--amp``: mixed precision in float16, by default with a dynamic loss scale."""
    if not torch.cuda.is_available():
        raise UserError('--amp needs a GPU, and PyTorch sees none; leave it out to train in fp32, or take --bf16')
    _must_be_plain('--amp', cfg)
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_bf16_training(cfg: Config) -> None:
    """``--bf16`` of a training: autocast to bfloat16; evaluation stays in fp32."""
    _must_be_plain('--bf16', cfg)
    for key in ('loss_scale', 'dtype', 'use_fsdp'):  # arguments of AmpOptimWrapper
        cfg.optim_wrapper.pop(key, None)
    cfg.optim_wrapper.type = 'BFloat16OptimWrapper'


def _must_be_plain(option: str, cfg: Config) -> None:
    wrapper = {'type': OptimWrapper, **cfg.optim_wrapper}
    if class_of(wrapper, OPTIM_WRAPPERS, cfg.get('default_scope')) not in (OptimWrapper, AmpOptimWrapper):
        raise UserError(f'{option} cannot be combined with optim_wrapper.type={type_name(wrapper)!r}')


def enable_bf16_testing(cfg: Config) -> None:
    """``--bf16`` of a test: the backbone in bfloat16."""
    add_hook(cfg, 'BFloat16Hook')


def enable_channels_last(cfg: Config) -> None:
    """``--channels-last``: the whole model lies channels-last in memory."""
    cfg.channels_last = True


def enable_compile(cfg: Config) -> None:
    """``--compile``: the backbone runs through ``torch.compile``."""
    variable, usual = ('CC', 'gcc') if torch.cuda.is_available() else ('CXX', 'g++')
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler) is None:
        raise UserError(f'--compile needs a compiler, and {compiler} is missing; install it (Debian: apt-get install '
                        f'{usual}), name another in {variable}, or leave --compile out')
    add_hook(cfg, 'CompileHook')


def enable_deploy(cfg: Config) -> None:
    """``--deploy``: the BatchNorms of the backbone are folded before the test."""
    if not has_dwnet(cfg):
        raise UserError('--deploy folds the BatchNorms of a DWNet, and the backbone of this config is none')
    add_hook(cfg, 'DeployHook')


def enable_fsdp(cfg: Config) -> None:
    """``--strategy fsdp``: shards weights, gradients and optimizer state over the processes."""
    if cfg.get('launcher', 'none') == 'none':
        raise UserError('--strategy fsdp is for several processes, which '
                        f"`bash {script('dist_train.sh')} CONFIG NUMBER --strategy fsdp` starts")
    if class_of(cfg.optim_wrapper, OPTIM_WRAPPERS, cfg.get('default_scope')) is AmpOptimWrapper:
        raise UserError('--strategy fsdp cannot be combined with mixed precision in float16: add --bf16, or '
                        '--cfg-options optim_wrapper.type=OptimWrapper for float32')
    if cfg.get('channels_last'):  # as in the config of an earlier training
        raise UserError('--strategy fsdp cannot be combined with channels_last=True, which the config sets: remove it')
    if any(is_a(hook, EMAHook, HOOKS, cfg.get('default_scope')) for hook in cfg.get('custom_hooks') or []):
        raise UserError('--strategy fsdp cannot be combined with a moving average of the weights (EMAHook)')
    cfg.strategy = 'fsdp'


def enable_log_to(cfg: Config, places: list[str]) -> None:
    """``--log-to``: also writes the curves to TensorBoard or Weights & Biases, by mmengine's backends."""
    backends = dict(tensorboard=TensorboardVisBackend, wandb=WandbVisBackend)
    visualizer = cfg.setdefault('visualizer', ConfigDict(type='Visualizer'))
    kept = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
    for place in places:
        if importlib.util.find_spec(place) is None:
            raise UserError(f'--log-to {place}: the package {place} is missing: pip install {place}')
        if not any(is_a(backend, backends[place], VISBACKENDS, cfg.get('default_scope')) for backend in kept):
            kept.append(dict(type=backends[place].__name__))
    visualizer.vis_backends = kept


def enable_show_dir(cfg: Config, folder: str) -> None:
    """``--show-dir``: the toolbox's hook draws every prediction beside the ground truth."""
    folder = str(Path(folder).resolve())
    if cfg.default_hooks.get('visualization') is None:
        raise UserError('--show-dir needs default_hooks.visualization in the config')
    if reader_of(cfg).color_type == 'color':
        toolbox_of(cfg).save_pictures(cfg, folder)
    else:
        add_hook(cfg, ShowHook.__name__, folder=folder)


def enable_out(cfg: Config, out: str) -> None:
    """``--out``: writes predictions to a file (classification, detection) or a folder (segmentation)."""
    toolbox_of(cfg).save_predictions(cfg, out)


def enable_tta(cfg: Config) -> None:
    """``--tta``: the config's ``tta_model`` averages over the views of its ``tta_pipeline``.

    Without these two, the views are each image and its mirror image, and a detector predicts boxes alone.
    """
    if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
        toolbox_of(cfg).add_mirrored_view(cfg)
    cfg.model = ConfigDict(**cfg.tta_model, module=copy.deepcopy(cfg.model))
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def enable_slices(cfg: Config, size: int, overlap: float | None) -> None:
    """``--slice N``: large images are predicted in tiles of N×N pixels."""
    if size < LEAST_TILE:
        raise UserError(f'--slice {size}: the side of a tile in pixels, {LEAST_TILE} at least, such as 640')
    toolbox_of(cfg).slice_images(cfg, size, OVERLAP if overlap is None else overlap)


def check_overlap(cfg: Config, overlap: float, size: int | None) -> None:
    """``--overlap F``: the fraction of a side that neighbouring tiles of ``--slice`` share."""
    if size is None:
        raise UserError('--overlap is for the tiles of --slice N: name their size, or leave it out')
    if not 0 <= overlap <= MOST_OVERLAP:
        raise UserError(f'--overlap {overlap}: a fraction of a tile, 0 to {MOST_OVERLAP}, such as {OVERLAP}')
