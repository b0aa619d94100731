"""Options of a fine-tuning: a user's own data, length, learning rate, frozen and averaged weights."""
import copy
import inspect
import math
import os
from argparse import Namespace

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.model import PretrainedInit
from mmengine.optim.scheduler.param_scheduler import ConstantParamScheduler, LinearParamScheduler
from mmengine.registry import (
    DATASETS,
    HOOKS,
    MODELS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    WEIGHT_INITIALIZERS,
    Registry,
)

from dwnet.engine.checkpoints import checkpoints_in, pointed_at
from dwnet.engine.distributed.process_group import is_first, world_size
from dwnet.errors import UserError, some
from dwnet.registry import class_of, is_a, type_name
from dwnet.toolboxes import enter_scope, main_score, toolbox_of
from dwnet.toolboxes.base import as_list
from dwnet.toolboxes.checked import with_checks
from dwnet.toolboxes.own_data import use_own_data

from .._cfg_options import merge_options
from . import add_hook
from .balance import balance

_OWN_EPOCHS = 50  # the most epochs on own data without --epochs
_PURPOSES = dict(train='to train', val='to validate', test='to test')


def enable_own_data(cfg: Config, args: Namespace) -> None:
    """``--data-root ROOT``: trains on a user's own data, of any form that ``data/`` reads.

    Sets data sets, evaluators and heads. The batch size is the config's, or smaller if an epoch would have fewer than
    eight batches. The learning rate scales with the batch size for SGD, and with its square root otherwise, which
    suits Adam. The training has the config's epochs, at most 50, validates after each epoch, and keeps the best
    checkpoint. ``--epochs``, ``--lr`` and ``--cfg-options`` override these choices.
    """
    given = dict(args.cfg_options or {})
    _take_length(cfg, args, given)
    data = use_own_data(cfg, *args.data_root, form=args.data_format)
    loader = cfg.train_dataloader
    processes = world_size(cfg.get('launcher', 'none'))
    samples = balance(cfg) if args.balance else data.sizes['train']
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
    logger.interval = min(logger.get('interval', 10), steps)  # the log has a line for each epoch
    cfg.default_hooks.update(val_loss=dict(type='ValidationLossHook'), class_scores=dict(type='ClassScoresHook'))
    keep_best(cfg)
    cfg.default_hooks.checkpoint.setdefault('max_keep_ckpts', 2)
    merge_options(cfg, given)
    if not is_first(cfg.get('launcher', 'none')):
        return
    classes = f'{len(data.classes)} classes ({some(data.classes, 20)})'
    sizes = ', '.join(f'{size} {_PURPOSES[part]}' for part, size in data.sizes.items())
    print(f"{', '.join(args.data_root)}: {data.form}; {classes}; images: {sizes}")
    for note in data.notes:
        print(f'note: {note}')
    rate = cfg.optim_wrapper.optimizer.lr if args.lr is None else args.lr
    print(f'{args.epochs} epochs of about {steps} steps of {cfg.train_dataloader.batch_size * processes} images, '
          f'learning rate {rate:g}')


def _take_length(cfg: Config, args: Namespace, given: dict) -> None:
    """Takes ``--cfg-options train_cfg.max_epochs=N`` for ``--epochs N``, so that the schedule gets the same length."""
    if 'train_cfg.max_iters' in given or 'train_cfg.max_epochs' in given and 'max_iters' in cfg.train_cfg:
        raise UserError('--cfg-options train_cfg.…: with --data-root say --epochs')
    if (length := given.pop('train_cfg.max_epochs', None)) is None:
        return
    if args.epochs not in (None, length):
        raise UserError(f'--epochs {args.epochs} and train_cfg.max_epochs={length}: leave one of them out')
    args.epochs = length
    cfg.train_cfg.max_epochs = Config.fromfile(cfg.filename).train_cfg.max_epochs  # the length of the schedule


def enable_epochs(cfg: Config, epochs: int, data_root: list[str] | None) -> None:
    """``--epochs N``. With own data :func:`enable_own_data` has set the epochs already."""
    if not data_root:
        set_epochs(cfg, epochs, _count_samples(cfg))


def _count_samples(cfg: Config) -> int:
    enter_scope(cfg)
    return len(DATASETS.build(with_checks(copy.deepcopy(cfg.train_dataloader.dataset))))


def set_epochs(cfg: Config, epochs: int, samples: int) -> None:
    """Sets the length of the training to ``epochs`` passes over ``samples`` images, and stretches the schedule to it.

    Hooks that begin at an epoch or iteration begin at the same fraction of the training. A training that counts
    iterations gets the iterations of ``epochs`` epochs, and validates and saves after each epoch. A warm-up that counts
    iterations in a training that counts epochs lasts at most a tenth of the training.
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
    key = '_epoch' if by_epoch else '_iter'  # the unit of hooks that, say, end strong augmentation
    for part in (loop, *(cfg.get('custom_hooks') or ())):
        for name in ('val_begin', f'switch{key}', f'begin{key}'):
            if part.get(name):
                part[name] = round(factor * part[name])
    toolbox_of(cfg).stretch_schedule(cfg, factor, epochs * steps)
    for scheduler in as_list(cfg.get('param_scheduler') or []):
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


def enable_auto_scale_lr(cfg: Config) -> None:
    """``--auto-scale-lr``: learning rate × actual batch / ``auto_scale_lr.base_batch_size``."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=…) in the config: the '
                        'total batch size that its learning rate is meant for')
    cfg.auto_scale_lr.enable = True


def enable_layer_decay(cfg: Config, rate: float) -> None:
    """``--layer-decay RATE``: the nearer a layer is to the image, the slower it learns."""
    if not 0 < rate <= 1:
        raise UserError(f'--layer-decay {rate}: a factor above 0, at most 1, such as 0.8')
    wrapper = cfg.optim_wrapper
    wrapper.constructor = 'LayerDecayConstructor'
    wrapper.paramwise_cfg = {**(wrapper.get('paramwise_cfg') or {}), 'layer_decay_rate': rate}
    for scheduler in as_list(cfg.get('param_scheduler') or []):
        end = scheduler.pop('eta_min', None)  # one floor for all layers would raise the rate of the first
        if not end:
            continue
        if _takes(PARAM_SCHEDULERS, scheduler, 'eta_min_ratio', cfg):
            scheduler.eta_min_ratio = end / wrapper.optimizer.lr
        else:
            print(f'--layer-decay: {type_name(scheduler)} ends at 0 and not at eta_min={end:g}, which would be one for '
                  'all layers')


def enable_freeze(cfg: Config, stages: int, resume: str | None = None) -> None:
    """``--freeze N``: the stem and the first N stages of the backbone are not trained."""
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


def enable_ema(cfg: Config) -> None:
    """``--ema``: validates and keeps a moving average of the weights over about the last tenth of the steps."""
    if any(is_a(hook, EMAHook, HOOKS, cfg.get('default_scope')) for hook in cfg.get('custom_hooks') or []):
        raise UserError('--ema: this config averages the weights already (custom_hooks)')
    # with mmengine's fixed momentum of 0.0002 the average would stay near the first weights on a small data set
    add_hook(cfg, 'EMAHook', ema_type='MomentumAnnealingEMA', gamma=10, update_buffers=True)


def enable_early_stopping(cfg: Config, patience: int) -> None:
    """``--early-stopping N``: ends the training after N validations in a row without a new best score."""
    if patience < 1:
        raise UserError(f'--early-stopping {patience}: so many validations without a better one, 1 at least')
    keep_best(cfg)
    add_hook(cfg, 'ResumableEarlyStoppingHook', monitor=main_score(cfg), rule=_rule_of_best(cfg), min_delta=1e-6,
             patience=patience)


def _rule_of_best(cfg: Config) -> str | None:
    """``'greater'`` or ``'less'``, by which the score of :func:`main_score` is better; None: mmengine knows it."""
    checkpoint = cfg.default_hooks.checkpoint
    scores, rules = as_list(checkpoint.save_best), as_list(checkpoint.get('rule'))
    of_score = dict(zip(scores, rules * len(scores) if len(rules) == 1 else rules))
    return of_score.get(main_score(cfg), 'greater')  # save_best='auto' leaves the choice to our table


def keep_best(cfg: Config) -> None:
    """Also keeps the checkpoint with the best validation score."""
    checkpoint = cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook'))
    if not checkpoint.get('save_best'):
        checkpoint.update(save_best=main_score(cfg), rule='greater')


def _takes(registry: Registry, config: dict, argument: str, cfg: Config) -> bool:
    """Whether the class of ``config``, a part of ``cfg``, or one of its base classes has an argument of this name."""
    kind = class_of(config, registry, cfg.get('default_scope'))
    return any(argument in inspect.signature(base.__init__).parameters for base in getattr(kind, '__mro__', ()))
