"""Exact resumption: every random number of a training follows from the seed and the place in the training.

In mmengine the generators run on from the first step to the last, in the main process and in each data worker, so a
resumed training draws other numbers. Here the generators are seeded again from (seed, step, rank) before each step, and
from (seed, epoch, place in the epoch) before each sample. So no state has to be saved, for any number of workers, and
the augmentation of a sample does not depend on the number of processes. NumPy's ``SeedSequence`` derives the seeds.
"""
import contextlib
import itertools
import logging
import random
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, HOOKS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, Subset

from dwnet.data.files import most_left_out
from dwnet.errors import UserError, one_line

_STEPS, _SAMPLES, VALIDATION = 0, 1, 2  # independent streams of random numbers


def seed_generators(seed: int, *place: int) -> None:
    """Seeds Python, NumPy and PyTorch from a training's seed and a place in it."""
    a, b, c, d = np.random.SeedSequence(seed, spawn_key=place).generate_state(4).tolist()
    random.seed(a)
    np.random.seed(b)
    torch.default_generator.manual_seed(c << 32 | d)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(c << 32 | d)


@contextlib.contextmanager
def randomness_kept() -> Iterator[None]:
    """Restores the random number generators after the block."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds the random numbers of a step: dropped paths, mixed images, sampled boxes."""
    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        seed_generators(runner.seed, _STEPS, runner.iter, get_rank())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta'].update(steps_an_epoch=len(runner.train_dataloader), processes=get_world_size())


class PlacedBatchSampler(Sampler):
    """A batch sampler that can begin at any batch; each index comes with its epoch and place.

    Args:
        sampler: Gives the indices of this process.
        batch_size: Samples in a batch.
        batches: Config of a batch sampler, such as mmdet's by aspect ratio; None for plain batches.
        drop_last: For plain batches: leave out the last batch if it is incomplete.
        endless: Repeat epochs for ever, for iteration-based training.

    Attributes:
        epoch: The epoch of the next pass.
        first: The first batch of the next pass.
    """

    def __init__(self, sampler: Sampler, batch_size: int, batches: dict | None = None, drop_last: bool = False,
                 endless: bool = False) -> None:
        self.sampler = sampler  # mmengine's DistSamplerSeedHook reads this attribute
        self.batches = BatchSampler(sampler, batch_size, drop_last) if batches is None else DATA_SAMPLERS.build(
            batches, default_args=dict(sampler=sampler, batch_size=batch_size))
        self.batch_size, self.drop_last = batch_size, getattr(self.batches, 'drop_last', False)
        self.endless = endless
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        rank, world_size, first = get_rank(), get_world_size(), self.first
        for epoch in itertools.count(self.epoch) if self.endless else [self.epoch]:
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            seen = 0
            for batch in self.batches:
                if first:
                    first -= 1
                else:  # samplers deal samples to the processes in turn, which gives the place among all samples
                    yield [(index, epoch, (seen + i) * world_size + rank) for i, index in enumerate(batch)]
                seen += len(batch)
            if not seen:
                raise UserError('the training data make no single batch: there are no samples, or fewer than a batch '
                                'and drop_last=True')


class SampleReader:
    """Reads the samples of a batch; PyTorch's data workers call the reader in place of ``dataset[index]``.

    If a sample cannot be read, the log names it, once for each worker, and a random sample takes its place.

    Args:
        dataset: Any data set with a length.
        seed: Seed of the training.
        of: What the samples are for, in messages.
    """

    def __init__(self, dataset: Dataset, seed: int, of: str = 'training') -> None:
        self.dataset, self.seed, self.of = dataset, seed, of
        self.limit = most_left_out(len(dataset))
        self.unreadable = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()  # seen by all workers

    def __call__(self, places: list[tuple[int, int, int]]) -> list[Any]:
        return [self.read(*place) for place in places]

    def read(self, index: int, epoch: int, place: int) -> Any:
        """The sample, with the augmentation that its place in the training determines.

        Raises:
            UserError: If too many samples cannot be read.
        """
        for attempt in itertools.count():
            seed_generators(self.seed, _SAMPLES, epoch, place, attempt)
            try:
                return self.dataset[index]
            except (MemoryError, UserError):
                raise
            except Exception as error:  # a broken file may raise anything
                self._report(index, error)
                if attempt == 9:
                    raise UserError(f'ten {self.of} samples in a row cannot be read: is the pipeline at fault? '
                                    f'Last error: {one_line(error)}') from error
            index = random.randrange(len(self.dataset))

    def _report(self, index: int, error: Exception) -> None:
        reason = one_line(error)
        name = _name_of(self.dataset, index)
        if not self.unreadable[index]:
            self.unreadable[index] = True
            print_log(f'{name} cannot be read and is left out ({reason})', logger='current', level=logging.ERROR)
        count = int(self.unreadable.sum())
        if count > self.limit or count == len(self.unreadable):
            raise UserError(f'{count} of {len(self.unreadable)} {self.of} samples cannot be read, more than '
                            f'{self.limit}; the log names them, the last is {name} ({reason})') from error


def _name_of(dataset: Sized, index: int) -> str:
    """The path of a sample, if the data set has one."""
    try:
        info = dataset.get_data_info(index)
        return str(info.get('img_path') or info['filename'])
    except Exception:
        return f'sample {index} of {type(dataset).__name__}'


def build_train_loader(runner: Runner, loader: DataLoader | dict, endless: bool) -> DataLoader:
    """A loader of training data that can begin at any batch and seeds samples by their place.

    A loader that is built already is returned unchanged; training with such a loader cannot be resumed exactly.
    """
    if not isinstance(loader, dict):
        return loader
    cfg = dict(loader)
    if isinstance(cfg['dataset'], (list, tuple)):  # a list takes no attribute __getitems__, which is set below
        cfg['dataset'] = Subset(cfg['dataset'], range(len(cfg['dataset'])))
    # pop: PyTorch refuses drop_last beside a batch sampler
    drop_last = cfg.get('batch_sampler') is None and cfg.pop('drop_last', False)
    cfg['batch_sampler'] = dict(type=PlacedBatchSampler, batches=cfg.get('batch_sampler'),
                                drop_last=drop_last, endless=endless)
    built = runner.build_dataloader(cfg, runner.seed, runner._randomness_cfg.get('diff_rank_seed', False))
    built.dataset.__getitems__ = SampleReader(built.dataset, runner.seed)  # PyTorch's fetcher calls this method
    return built


def begin_at(loader: DataLoader, epoch: int, batch: int) -> None:
    """Makes the next pass over ``loader`` begin at this batch of this epoch."""
    if isinstance(loader.batch_sampler, PlacedBatchSampler):
        loader.batch_sampler.epoch, loader.batch_sampler.first = epoch, batch
    elif batch:
        print_log('the data loader was built before the Runner, so the epoch begins again', logger='current',
                  level=logging.WARNING)
