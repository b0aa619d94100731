"""Draws the learning rate of a config over its training.

Nothing is trained, and the data need not be there.
"""
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.engine import Runner
from dwnet.errors import UserError
from dwnet.inspect.figure import save
from dwnet.inspect.schedule import learning_rates, plot
from dwnet.toolboxes import enter_scope

from ._arguments import add_config_arguments
from ._config import load_config

EXAMPLE = 'configs/classification/dwnet-nano_digits.py'
ASSUMED = 1000  # steps of an epoch


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        '--epoch-length', type=int, metavar='STEPS',
        help='steps of an epoch; in a step each process takes one batch (default: the steps of a single process, if '
        f'the data are there, else {ASSUMED})')
    parser.add_argument('--out', help='the picture (default: lr.png in the work dir)')


def run(args: Namespace) -> None:
    cfg = load_config(args)
    if not cfg.get('optim_wrapper') or not cfg.get('train_cfg'):
        raise UserError(f'{args.config} trains nothing: it has no optim_wrapper or no train_cfg')
    by_epoch = 'max_epochs' in cfg.train_cfg
    length = args.epoch_length or (_steps(cfg) if by_epoch else 1)
    rates = learning_rates(cfg, length)
    unit = f'{cfg.train_cfg.max_epochs} epochs of {length} steps' if by_epoch else f'{cfg.train_cfg.max_iters} steps'
    first = next(iter(rates.values()))
    figure = plot(rates, length if by_epoch else None, f'{Path(args.config).stem}: {unit}')
    print(f'{unit}: from {first[0]:.3g} to at most {max(first):.3g}, at the end {first[-1]:.3g}')
    print(f"learning rate: {save(figure, args.out or Path(cfg.work_dir, 'lr.png'))}")


def _steps(cfg) -> int:
    enter_scope(cfg)
    try:
        loader = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
        return len(Runner.build_dataloader(loader))
    except Exception:  # missing data may raise anything
        print(f'the training data cannot be read: {ASSUMED} steps an epoch are assumed; --epoch-length says otherwise')
        return ASSUMED
