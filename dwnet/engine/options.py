"""Each command-line option as a change of the config, the same for the three toolboxes."""
import copy
import importlib.util
import os
import shutil
from argparse import Namespace
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from dwnet.errors import UserError

from .checkpoints import checkpoints_in, pointed_at


def enable_resume(cfg: Config, checkpoint: str) -> None:
    """``--resume [CHECKPOINT]``: model, optimiser, schedule and epoch go on where they were."""
    if checkpoint == 'auto':
        checkpoint = pointed_at(cfg.work_dir)
        if '://' not in checkpoint:  # else it is on a server
            if not checkpoints_in(cfg.work_dir):
                print(f'nothing to resume in {cfg.work_dir}: the training starts from the beginning')
                return
            cfg.resume, cfg.load_from = True, None  # the Runner takes the newest whole one
            _leave_out_pretrained(cfg)
            return
    cfg.resume = True
    start_from(cfg, checkpoint)


def enable_resume_after_restart(cfg: Config) -> None:
    """Started again by torchrun, a training goes on from what it has written since tools/dist_train.sh was called."""
    pointer = Path(cfg.work_dir, 'last_checkpoint')
    if (int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0 and pointer.is_file()
            and pointer.stat().st_mtime >= float(os.environ.get('DWNET_LAUNCHED_AT', 'inf'))):
        enable_resume(cfg, 'auto')


def set_checkpoint(cfg: Config, checkpoint: str) -> None:
    """The checkpoint to test."""
    cfg.resume = False
    start_from(cfg, checkpoint)


def start_from(cfg: Config, checkpoint: str) -> None:
    """``load_from``: the checkpoint brings all weights, so none are fetched for initialisation."""
    _must_exist(checkpoint)
    cfg.load_from = checkpoint
    _leave_out_pretrained(cfg)


def _leave_out_pretrained(cfg: Config) -> None:
    if cfg.model.get('backbone'):
        cfg.model.backbone.init_cfg = None


def enable_amp(cfg: Config) -> None:
    """``--amp``: mixed precision, with the loss scale adapted as it goes."""
    if not torch.cuda.is_available():
        raise UserError('--amp needs a GPU, and PyTorch sees none; leave it out to train in fp32, or take --bf16')
    _must_be_plain('--amp', cfg)
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_bf16_training(cfg: Config) -> None:
    """``--bf16`` of a training: bfloat16 where autocast finds it safe; evaluation stays in fp32."""
    _must_be_plain('--bf16', cfg)
    for key in ('loss_scale', 'dtype', 'use_fsdp'):  # AmpOptimWrapper's
        cfg.optim_wrapper.pop(key, None)
    cfg.optim_wrapper.type = 'BFloat16OptimWrapper'


def enable_fsdp(cfg: Config, args: Namespace) -> None:
    """``--strategy fsdp``: the weights, their gradients and the optimizer's state are spread over the processes."""
    if args.launcher == 'none':
        raise UserError('--strategy fsdp is for several processes: start it by tools/dist_train.sh')
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
        raise UserError('--strategy fsdp cannot be combined with mixed precision in float16: add --bf16, or '
                        '--cfg-options optim_wrapper.type=OptimWrapper for float32')
    if args.compile or args.channels_last:
        raise UserError('--strategy fsdp cannot be combined with --compile or --channels-last')
    if any(hook['type'] == 'EMAHook' for hook in cfg.get('custom_hooks') or []):
        raise UserError('--strategy fsdp cannot be combined with a moving average of the weights (EMAHook)')
    cfg.strategy = 'fsdp'


def enable_bf16_testing(cfg: Config) -> None:
    """``--bf16`` of a test: the backbone in bfloat16."""
    _add_hook(cfg, 'BFloat16Hook')


def _must_be_plain(option: str, cfg: Config) -> None:
    if (wrapper := cfg.optim_wrapper.get('type', 'OptimWrapper')) not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'{option} cannot be combined with optim_wrapper.type={wrapper!r}')


def enable_speed(cfg: Config, args: Namespace) -> None:
    """``--channels-last`` and ``--compile``; ``--bf16`` differs between training and testing."""
    if args.channels_last:
        _add_hook(cfg, 'ChannelsLastHook')
    if args.compile:
        enable_compile(cfg)


def enable_compile(cfg: Config) -> None:
    """``--compile``: the backbone runs through ``torch.compile``."""
    variable, usual = ('CC', 'gcc') if torch.cuda.is_available() else ('CXX', 'g++')
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler) is None:
        raise UserError(f'--compile needs a compiler, and {compiler} is missing; install it (Debian: apt-get install '
                        f'{usual}), name another in {variable}, or leave --compile out')
    _add_hook(cfg, 'CompileHook')


def _add_hook(cfg: Config, name: str) -> None:
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type=name)]


def enable_log_to(cfg: Config, places: list[str]) -> None:
    """``--log-to``: curves go to TensorBoard or Weights & Biases as well, by mmengine's own backends."""
    backends = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend')
    visualizer = cfg.setdefault('visualizer', ConfigDict(type='Visualizer'))
    kept = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
    for place in places:
        if importlib.util.find_spec(place) is None:
            raise UserError(f'--log-to {place}: the package {place} is missing: pip install {place}')
        if all(backend['type'] != backends[place] for backend in kept):
            kept.append(dict(type=backends[place]))
    visualizer.vis_backends = kept


def enable_auto_scale_lr(cfg: Config) -> None:
    """``--auto-scale-lr``: learning rate × actual batch / ``auto_scale_lr.base_batch_size``."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=…) in the config: the '
                        'total batch size that its learning rate is meant for')
    cfg.auto_scale_lr.enable = True


def enable_show_dir(cfg: Config, folder: str) -> None:
    """``--show-dir``: the toolbox's own hook draws every prediction, truth beside it."""
    folder = str(Path(folder).resolve())
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise UserError('--show-dir needs default_hooks.visualization in the config')
    if cfg.default_scope == 'mmpretrain':
        hook.update(enable=True, out_dir=folder, interval=1)
    elif cfg.default_scope == 'mmdet':
        hook.update(draw=True, test_out_dir=folder, interval=1)
    else:
        hook.update(draw=True, interval=1)
        cfg.visualizer.save_dir = folder


def enable_out(cfg: Config, out: str) -> None:
    """``--out``: predictions in a file (classification, detection) or a folder (segmentation)."""
    if cfg.default_scope == 'mmseg':
        cfg.test_evaluator.update(output_dir=out, keep_results=True)
        return
    if not out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {out}: the predictions are written as .pkl')
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    dump = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
    cfg.test_evaluator = [*metrics, dict(type=dump, out_file_path=out)]


def enable_tta(cfg: Config) -> None:
    """``--tta``: the config's ``tta_model`` averages over the views of its ``tta_pipeline``."""
    if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
        raise UserError('--tta needs tta_model and tta_pipeline, and this config has none')
    cfg.model = ConfigDict(**cfg.tta_model, module=copy.deepcopy(cfg.model))
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def enable_deploy(cfg: Config) -> None:
    """``--deploy``: the BatchNorms of the backbone are folded before the test."""
    if not str(cfg.model.get('backbone', {}).get('type')).endswith('DWNet'):
        raise UserError('--deploy folds the BatchNorms of a DWNet, and the backbone of this config is none')
    _add_hook(cfg, 'DeployHook')


def _must_exist(checkpoint: str) -> None:
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint} is missing; training writes it into its work dir')
