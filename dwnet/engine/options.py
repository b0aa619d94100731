"""Each command-line option as a change of the config, the same for the three toolboxes."""
import copy
import importlib.util
import inspect
import math
import os
import shutil
from argparse import Namespace
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.model import PretrainedInit
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.scheduler.param_scheduler import ConstantParamScheduler, LinearParamScheduler
from mmengine.registry import (
    DATASETS,
    HOOKS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    VISBACKENDS,
    WEIGHT_INITIALIZERS,
    Registry,
)
from mmengine.visualization import TensorboardVisBackend, WandbVisBackend

from dwnet.config_names import script
from dwnet.errors import UserError, some
from dwnet.models import DWNet
from dwnet.registry import class_of, is_a, type_name
from dwnet.toolboxes import enter_scope, main_metric, toolbox_of
from dwnet.toolboxes.base import as_list
from dwnet.toolboxes.checked import with_checks
from dwnet.toolboxes.own_data import use_own_data
from dwnet.weights.loading import read_checkpoint

from .checkpoints import checkpoints_in, pointed_at
from .distributed.process_group import is_first, world_size

_OWN_EPOCHS = 50  # most that a training on own data has unless it is told
_PURPOSES = dict(train='to train', val='to validate', test='to test')


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
    cfg.resume = cfg.new_heads = False
    start_from(cfg, checkpoint)


def start_from(cfg: Config, checkpoint: str) -> None:
    """``load_from``: the checkpoint brings all weights, so none are fetched for initialisation."""
    _must_exist(checkpoint)
    cfg.load_from = checkpoint
    _leave_out_pretrained(cfg)


def _leave_out_pretrained(cfg: Config) -> None:
    if cfg.model.get('backbone'):
        cfg.model.backbone.init_cfg = None


def start_with_new_heads(cfg: Config, checkpoint: str) -> None:
    """``--load-from`` with own data: heads for other classes begin anew, and weights without the heads of this model,
    of a classifier say, are what its backbone starts from."""
    _must_exist(checkpoint)
    weights = read_checkpoint(checkpoint)['state_dict']
    parts = {name.split('.')[0] for name in weights}
    # those of a classifier, or of a model whose heads this one does not have at all
    of_backbone = 'backbone' not in parts or not (parts - {'backbone', 'neck', 'head'}) & set(cfg.model)
    if of_backbone and toolbox_of(cfg).task != 'classification':
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        if 'backbone' in parts and not _is_dwnet(cfg):  # mmengine's would load nothing, and not say so
            cfg.model.backbone.init_cfg.prefix = 'backbone.'
        cfg.load_from = None
    else:
        cfg.new_heads = True
        start_from(cfg, checkpoint)


def enable_own_data(cfg: Config, args: Namespace) -> None:
    """``--data-root ROOT``: own data in folders, in COCO's form or as label images, and a training that suits them.

    The data sets, evaluators and heads are set. Batches are as the config says, or smaller where an epoch would have
    fewer than eight; the learning rate follows, of SGD in proportion, else by the square root, which suits Adam. The
    training has the config's epochs, or 50 if it has more, is validated behind each, and keeps the best checkpoint.
    ``--epochs``, ``--lr`` and ``--cfg-options`` say otherwise.
    """
    given = dict(args.cfg_options or {})
    _take_length(cfg, args, given)
    data = use_own_data(cfg, args.data_root)
    loader = cfg.train_dataloader
    processes, samples = world_size(cfg.get('launcher', 'none')), data.sizes['train']
    batch = given.get('train_dataloader.batch_size') or max(2, min(
        loader.batch_size, 2 ** int(math.log2(max(1, samples / 8 / processes)))))
    base = cfg.get('auto_scale_lr', {}).get('base_batch_size', loader.batch_size * processes)
    loader.batch_size = batch
    for part in ('train', 'val', 'test'):  # more workers than cores do not help a small data set
        part = cfg[f'{part}_dataloader']
        part.num_workers = min(part.get('num_workers', 0), os.cpu_count() or 1)
        part.persistent_workers = part.num_workers > 0
    optimizer = cfg.optim_wrapper.optimizer
    if args.lr is None and not args.auto_scale_lr:
        factor = batch * processes * cfg.optim_wrapper.get('accumulative_counts', 1) / base
        factor = factor if is_a(optimizer, torch.optim.SGD, OPTIMIZERS, cfg.get('default_scope')) else math.sqrt(factor)
        set_lr(cfg, float(f'{optimizer.lr * factor:.2g}'))
    if args.epochs is None:
        args.epochs = min(cfg.train_cfg.get('max_epochs', _OWN_EPOCHS), _OWN_EPOCHS)
    if 'max_epochs' in cfg.train_cfg:
        cfg.train_cfg.val_interval = 1
    set_epochs(cfg, args.epochs, samples)
    steps = max(1, samples // (batch * processes))
    logger = cfg.default_hooks.setdefault('logger', dict(type='LoggerHook'))
    logger.interval = min(logger.get('interval', 10), steps)  # each epoch says something
    keep_best(cfg)
    cfg.default_hooks.checkpoint.setdefault('max_keep_ckpts', 2)
    cfg.merge_from_dict(given)
    if not is_first(cfg.get('launcher', 'none')):
        return
    classes = f'{len(data.classes)} classes ({some(data.classes, 20)})'
    sizes = ', '.join(f'{size} {_PURPOSES[part]}' for part, size in data.sizes.items())
    print(f'{args.data_root}: {classes}; images: {sizes}')
    rate = cfg.optim_wrapper.optimizer.lr if args.lr is None else args.lr
    print(f'{args.epochs} epochs of about {steps} steps of {cfg.train_dataloader.batch_size * processes} images, '
          f'learning rate {rate:g}')


def _take_length(cfg: Config, args: Namespace, given: dict) -> None:
    """``--cfg-options train_cfg.max_epochs=N`` means ``--epochs N``, or the schedule would keep another length."""
    if 'train_cfg.max_iters' in given or 'train_cfg.max_epochs' in given and 'max_iters' in cfg.train_cfg:
        raise UserError('--cfg-options train_cfg.…: with --data-root say --epochs')
    if (length := given.pop('train_cfg.max_epochs', None)) is None:
        return
    if args.epochs not in (None, length):
        raise UserError(f'--epochs {args.epochs} and train_cfg.max_epochs={length}: leave one of them out')
    args.epochs = length
    cfg.train_cfg.max_epochs = Config.fromfile(cfg.filename).train_cfg.max_epochs  # that of the schedule


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
        raise UserError('--strategy fsdp is for several processes, which '
                        f"`bash {script('dist_train.sh')} CONFIG NUMBER --strategy fsdp` starts")
    if class_of(cfg.optim_wrapper, OPTIM_WRAPPERS, cfg.get('default_scope')) is AmpOptimWrapper:
        raise UserError('--strategy fsdp cannot be combined with mixed precision in float16: add --bf16, or '
                        '--cfg-options optim_wrapper.type=OptimWrapper for float32')
    if args.compile or cfg.get('channels_last'):  # of the option, or of the config of an earlier training
        raise UserError('--strategy fsdp cannot be combined with --compile or --channels-last')
    if any(is_a(hook, EMAHook, HOOKS, cfg.get('default_scope')) for hook in cfg.get('custom_hooks') or []):
        raise UserError('--strategy fsdp cannot be combined with a moving average of the weights (EMAHook)')
    cfg.strategy = 'fsdp'


def enable_bf16_testing(cfg: Config) -> None:
    """``--bf16`` of a test: the backbone in bfloat16."""
    _add_hook(cfg, 'BFloat16Hook')


def _must_be_plain(option: str, cfg: Config) -> None:
    wrapper = {'type': OptimWrapper, **cfg.optim_wrapper}
    if class_of(wrapper, OPTIM_WRAPPERS, cfg.get('default_scope')) not in (OptimWrapper, AmpOptimWrapper):
        raise UserError(f'{option} cannot be combined with optim_wrapper.type={type_name(wrapper)!r}')


def enable_speed(cfg: Config, args: Namespace) -> None:
    """``--channels-last`` and ``--compile``; ``--bf16`` differs between training and testing."""
    if args.channels_last:
        cfg.channels_last = True
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


def _add_hook(cfg: Config, name: str, **arguments) -> None:
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type=name, **arguments)]


def enable_fine_tuning(cfg: Config, args: Namespace) -> None:
    """``--epochs``, ``--lr``, ``--layer-decay``, ``--freeze``, ``--ema`` and ``--early-stopping``."""
    if args.epochs is not None and not args.data_root:
        set_epochs(cfg, args.epochs, _count_samples(cfg))
    if args.lr is not None:
        set_lr(cfg, args.lr)
    if args.layer_decay is not None:
        enable_layer_decay(cfg, args.layer_decay)
    if args.freeze is not None:
        enable_freeze(cfg, args.freeze, args.resume)
    if args.ema:
        enable_ema(cfg)
    if args.early_stopping is not None:
        enable_early_stopping(cfg, args.early_stopping)


def _count_samples(cfg: Config) -> int:
    enter_scope(cfg)
    return len(DATASETS.build(with_checks(copy.deepcopy(cfg.train_dataloader.dataset))))


def set_epochs(cfg: Config, epochs: int, samples: int) -> None:
    """``--epochs``: another length, the schedule stretched or shortened with it.

    Hooks that begin at an epoch or iteration begin at the same part of the training. Trainings that count in iterations
    get those of so many epochs, are validated behind each, and save then. A warm-up
    that counts iterations in a training that counts epochs lasts at most a tenth of it.

    Args:
        cfg: The config.
        epochs: Passes over the training data.
        samples: Training samples.
    """
    if epochs < 1:
        raise UserError(f'--epochs {epochs}: one epoch at least')
    loader, loop = cfg.train_dataloader, cfg.train_cfg
    batch = loader.batch_size * world_size(cfg.get('launcher', 'none'))
    drop_last = loader.get('drop_last') or (loader.get('batch_sampler') or {}).get('drop_last')
    steps = max(1, samples // batch if drop_last else math.ceil(samples / batch))
    by_epoch = 'max_epochs' in loop
    length, unit = ('max_epochs', 1) if by_epoch else ('max_iters', steps)
    factor = epochs * unit / loop[length]
    loop[length] = epochs * unit
    loop.pop('dynamic_intervals', None)
    if not by_epoch:
        loop.val_interval = steps
        cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook')).interval = steps
    loop.val_interval = min(loop.get('val_interval', 1), loop[length])
    key = '_epoch' if by_epoch else '_iter'  # in which the hooks count that, say, end strong augmentation
    for part in (loop, *(cfg.get('custom_hooks') or ())):
        for name in ('val_begin', f'switch{key}', f'begin{key}'):
            if part.get(name):
                part[name] = round(factor * part[name])
    schedule = cfg.get('param_scheduler') or []
    for scheduler in schedule if isinstance(schedule, list) else [schedule]:
        share = factor
        if by_epoch and not scheduler.get('by_epoch', True) and is_a(
                scheduler, (LinearParamScheduler, ConstantParamScheduler), PARAM_SCHEDULERS, cfg.get('default_scope')):
            share = min(1., .1 * epochs * steps / max(1, scheduler.get('end', 1)))
        for key in ('begin', 'end', 'T_max', 'warmup', 'step_size', 'milestones'):
            value = scheduler.get(key)
            if isinstance(value, (list, tuple)):
                scheduler[key] = [max(1, round(share * each)) for each in value]
            elif value:
                scheduler[key] = max(1, round(share * value))


def set_lr(cfg: Config, lr: float) -> None:
    """``--lr``: the peak of the learning rate."""
    optimizer = cfg.optim_wrapper.get('optimizer')
    if optimizer is None:
        raise UserError('--lr needs a config with optim_wrapper.optimizer')
    optimizer.lr = lr


def enable_freeze(cfg: Config, stages: int, resume: str | None = None) -> None:
    """``--freeze N``: the stem and the first N stages of the backbone stay as they are."""
    if stages not in range(5):
        raise UserError(f'--freeze {stages}: 0 freezes the stem, 1 to 4 also so many stages')
    backbone = cfg.model.get('backbone') or {}
    if not _takes(MODELS, backbone, 'frozen_stages', cfg):
        name = type_name(backbone) if backbone else 'this model'
        raise UserError(f'--freeze needs a backbone with frozen_stages, and {name} has none; --layer-decay, or --lr, '
                        'keeps it near to where it starts')
    pretrained = any(part.get('pretrained') or any(
        init and class_of(init, WEIGHT_INITIALIZERS) is PretrainedInit for init in as_list(part.get('init_cfg')))
                     for part in (cfg.model, backbone))
    resumes = resume not in (None, 'auto') or resume == 'auto' and (
        pointed_at(cfg.work_dir) or checkpoints_in(cfg.work_dir))
    if not (pretrained or resumes or cfg.get('load_from')):
        raise UserError(f'--freeze {stages} would keep random weights: name those to start from by --load-from')
    backbone.frozen_stages = stages


def enable_layer_decay(cfg: Config, rate: float) -> None:
    """``--layer-decay RATE``: the nearer a layer is to the image, the slower it learns."""
    if not 0 < rate <= 1:
        raise UserError(f'--layer-decay {rate}: a factor above 0, at most 1, such as 0.8')
    wrapper = cfg.optim_wrapper
    wrapper.constructor = 'LayerDecayConstructor'
    wrapper.paramwise_cfg = {**(wrapper.get('paramwise_cfg') or {}), 'layer_decay_rate': rate}
    schedule = cfg.get('param_scheduler') or []
    for scheduler in schedule if isinstance(schedule, list) else [schedule]:
        end = scheduler.pop('eta_min', None)  # one for all would raise the rate of the first layers
        if not end:
            continue
        if _takes(PARAM_SCHEDULERS, scheduler, 'eta_min_ratio', cfg):
            scheduler.eta_min_ratio = end / wrapper.optimizer.lr
        else:
            print(f'--layer-decay: {type_name(scheduler)} ends at 0 and not at eta_min={end:g}, which would be one for '
                  'all layers')


def enable_ema(cfg: Config) -> None:
    """``--ema``: the weights that are validated and kept are averages over about the last tenth of the steps."""
    if any(is_a(hook, EMAHook, HOOKS, cfg.get('default_scope')) for hook in cfg.get('custom_hooks') or []):
        raise UserError('--ema: this config averages the weights already (custom_hooks)')
    # mmengine's fixed momentum of 0.0002 would keep, over the few steps of a small data set, where it started from
    _add_hook(cfg, 'EMAHook', ema_type='MomentumAnnealingEMA', gamma=10, update_buffers=True)


def enable_early_stopping(cfg: Config, patience: int) -> None:
    """``--early-stopping N``: the training ends when N validations in a row were no better than the best."""
    if patience < 1:
        raise UserError(f'--early-stopping {patience}: so many validations without a better one, 1 at least')
    keep_best(cfg)
    _add_hook(cfg, 'ResumableEarlyStoppingHook', monitor=main_metric(cfg), rule='greater',
              min_delta=1e-6, patience=patience)


def keep_best(cfg: Config) -> None:
    """The checkpoint that validates best is kept, too."""
    checkpoint = cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    if not checkpoint.get('save_best'):
        checkpoint.update(save_best=main_metric(cfg), rule='greater')


def enable_log_to(cfg: Config, places: list[str]) -> None:
    """``--log-to``: curves go to TensorBoard or Weights & Biases as well, by mmengine's own backends."""
    backends = dict(tensorboard=TensorboardVisBackend, wandb=WandbVisBackend)
    visualizer = cfg.setdefault('visualizer', ConfigDict(type='Visualizer'))
    kept = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
    for place in places:
        if importlib.util.find_spec(place) is None:
            raise UserError(f'--log-to {place}: the package {place} is missing: pip install {place}')
        if not any(is_a(backend, backends[place], VISBACKENDS, cfg.get('default_scope')) for backend in kept):
            kept.append(dict(type=backends[place].__name__))
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
    if cfg.default_hooks.get('visualization') is None:
        raise UserError('--show-dir needs default_hooks.visualization in the config')
    toolbox_of(cfg).save_pictures(cfg, folder)


def enable_out(cfg: Config, out: str) -> None:
    """``--out``: predictions in a file (classification, detection) or a folder (segmentation)."""
    toolbox_of(cfg).save_predictions(cfg, out)


def enable_tta(cfg: Config) -> None:
    """``--tta``: the config's ``tta_model`` averages over the views of its ``tta_pipeline``; by default each image and
    its mirror image, and of detections the boxes alone."""
    if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
        toolbox_of(cfg).add_mirrored_view(cfg)
    cfg.model = ConfigDict(**cfg.tta_model, module=copy.deepcopy(cfg.model))
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def enable_deploy(cfg: Config) -> None:
    """``--deploy``: the BatchNorms of the backbone are folded before the test."""
    if not _is_dwnet(cfg):
        raise UserError('--deploy folds the BatchNorms of a DWNet, and the backbone of this config is none')
    _add_hook(cfg, 'DeployHook')


def _takes(registry: Registry, config: dict, argument: str, cfg: Config) -> bool:
    """Whether the class of a part of ``cfg``, or one that it is made from, has an argument of this name."""
    kind = class_of(config, registry, cfg.get('default_scope'))
    return any(argument in inspect.signature(base.__init__).parameters for base in getattr(kind, '__mro__', ()))


def _is_dwnet(cfg: Config) -> bool:
    return is_a(cfg.model.get('backbone') or {}, DWNet, MODELS, cfg.get('default_scope'))


def _must_exist(checkpoint: str) -> None:
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint} is missing; training writes it into its work dir')
