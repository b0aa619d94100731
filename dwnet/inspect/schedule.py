"""The learning-rate schedule of a config, from mmengine's own schedulers; nothing is trained."""
import copy
import logging
import warnings

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS

from dwnet.toolboxes import enter_scope

from .figure import COLOURS, MAP, new_figure


def learning_rates(cfg: Config, epoch_length: int) -> dict[float, list[float]]:
    """The learning rate of each step, for each base rate of the parameter groups.

    Args:
        cfg: A config of mmpretrain, mmdet or mmseg.
        epoch_length: Steps of an epoch.

    Returns:
        Base rate → the rates of all steps, largest base rate first. Layer-wise decay gives several base rates.
    """
    enter_scope(cfg)
    with torch.device('meta'):  # only names and kinds of the parameters matter
        model = MODELS.build(copy.deepcopy(cfg.model))
    settings = {key: value for key, value in cfg.optim_wrapper.items()
                if key in ('optimizer', 'paramwise_cfg', 'constructor')}
    logging.disable(logging.INFO)  # mmengine logs a line for each parameter
    try:
        wrapper = build_optim_wrapper(model, copy.deepcopy(settings))
    finally:
        logging.disable(logging.NOTSET)
    groups = {group['lr']: group for group in wrapper.optimizer.param_groups}
    wrapper.optimizer.param_groups[:] = [groups[lr] for lr in sorted(groups, reverse=True)]

    by_epoch = 'max_epochs' in cfg.train_cfg
    epochs = cfg.train_cfg.max_epochs if by_epoch else 1
    steps = epochs * epoch_length if by_epoch else cfg.train_cfg.max_iters
    schedulers = []
    settings = cfg.get('param_scheduler') or []
    for setting in settings if isinstance(settings, list) else [settings]:
        end = epochs if setting.get('by_epoch', True) else steps
        schedulers.append(PARAM_SCHEDULERS.build(
            {'end': end, **setting}, default_args=dict(optimizer=wrapper, epoch_length=epoch_length)))
    rates: dict[float, list[float]] = {lr: [] for lr in sorted(groups, reverse=True)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # PyTorch warns that the optimizer makes no step
        for step in range(1, steps + 1):
            for values, group in zip(rates.values(), wrapper.optimizer.param_groups):
                values.append(group['lr'])
            for scheduler in schedulers:
                if not scheduler.by_epoch or by_epoch and step % epoch_length == 0:
                    scheduler.step()
    return rates


def plot(rates: dict[float, list[float]], epoch_length: int | None, title: str) -> Figure:
    """Draws the rates over epochs, or over iterations if ``epoch_length`` is None."""
    figure = new_figure(7, 3.6)
    axes = figure.subplots()
    shades = [COLOURS[0]] if len(rates) == 1 else [colormaps[MAP](i / len(rates)) for i in range(len(rates))]
    for (base, values), colour in zip(rates.items(), shades):
        axes.plot([step / (epoch_length or 1) for step in range(len(values))], values, color=colour,
                  label=f'{base:.3g}', linewidth=1.5)
    if len(rates) > 1:
        axes.legend(title='base rate', loc='upper right', fontsize=8,
                    ncols=1 + len(rates) // 10)
    axes.set(title=title, xlabel='epoch' if epoch_length else 'iteration', ylabel='learning rate')
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.ticklabel_format(axis='y', style='sci', scilimits=(-2, 3), useMathText=True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=.25)
    return figure
