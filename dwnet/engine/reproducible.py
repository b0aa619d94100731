"""Exact resumption: every random number of a training follows from its seed and its place in the training.

mmengine's generators run on from the first step to the last, in the main process and in each data worker, so a
training that is taken up again draws other numbers. Here they are seeded anew, from (seed, step, rank) before each
step and from (seed, epoch, place in the epoch) before each sample. So there is no state to save, whatever the
number of workers, and a sample is augmented alike however many processes share an epoch. The seeds are derived as
NumPy's ``SeedSequence`` does it.
"""
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

from dwnet.errors import UserError, one_line

_STEPS, _SAMPLES = 0, 1  # streams of random numbers, apart from each other


def seed_generators(seed: int, *place: int) -> None:
    """Seeds Python, NumPy and PyTorch from a training's seed and a place in it."""
    a, b, c, d = np.random.SeedSequence(seed, spawn_key=place).generate_state(4).tolist()
    random.seed(a)
    np.random.seed(b)
    torch.default_generator.manual_seed(c << 32 | d)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(c << 32 | d)


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds what the model draws in a step: dropped paths, mixed images, sampled boxes."""
    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        seed_generators(runner.seed, _STEPS, runner.iter, get_rank())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta'].update(steps_an_epoch=len(runner.train_dataloader), processes=get_world_size())


class PlacedBatchSampler(Sampler):
    """Batches that can begin at any place; each index comes with the place of its sample.

    Args:
        sampler: Gives the indices of this process.
        batch_size: Samples a batch.
        batches: Config of a batch sampler, such as mmdet's by aspect ratio; plain batches if there is none.
        drop_last: For plain batches: leave out the last one if it is not full.
        endless: Epoch follows epoch, as iteration-based training wants it.

    Attributes:
        epoch: The epoch of the next pass.
        first: The batch that the next pass begins with.
    """

    def __init__(self, sampler: Sampler, batch_size: int, batches: dict | None = None, drop_last: bool = False,
                 endless: bool = False) -> None:
        self.sampler = sampler  # mmengine's DistSamplerSeedHook looks for it
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
                else:  # a sample's place among those of all processes: samplers deal them out in turn
                    yield [(index, epoch, (seen + i) * world_size + rank) for i, index in enumerate(batch)]
                seen += len(batch)
            if not seen:
                raise UserError('the training data make no single batch: there are none, or fewer than a batch and '
                                'drop_last=True leaves them out')


class SampleReader:
    """Reads the samples of a batch; PyTorch's data workers call it in place of ``dataset[index]``.

    A sample that cannot be read is named in the log, once a worker, and another one takes its place.

    Args:
        dataset: Any data set with a length.
        seed: Seed of the training.
        share: More of the samples than this, and more than ten, end the training.
    """

    def __init__(self, dataset: Dataset, seed: int, share: float = 0.01) -> None:
        self.dataset, self.seed = dataset, seed
        self.limit = max(10, round(share * len(dataset)))
        self.unreadable = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()  # seen by all workers

    def __call__(self, places: list[tuple[int, int, int]]) -> list[Any]:
        return [self.read(*place) for place in places]

    def read(self, index: int, epoch: int, place: int) -> Any:
        """The sample, its augmentation drawn from its place in the training.

        Raises:
            UserError: If too many samples cannot be read.
        """
        for attempt in itertools.count():
            seed_generators(self.seed, _SAMPLES, epoch, place, attempt)
            try:
                return self.dataset[index]
            except (MemoryError, UserError):
                raise
            except Exception as error:  # whatever a broken file leads to
                self._report(index, error)
                if attempt == 9:
                    raise UserError('ten training samples, one behind the other, cannot be read: is the pipeline at '
                                    f'fault? The last one: {one_line(error)}') from error
            index = random.randrange(len(self.dataset))

    def _report(self, index: int, error: Exception) -> None:
        reason = one_line(error)
        name = _name_of(self.dataset, index)
        if not self.unreadable[index]:
            self.unreadable[index] = True
            print_log(f'{name} cannot be read and is left out ({reason})', logger='current', level=logging.ERROR)
        count = int(self.unreadable.sum())
        if count > self.limit or count == len(self.unreadable):
            raise UserError(f'{count} of {len(self.unreadable)} training samples cannot be read, more than '
                            f'{self.limit}; the log names them, the last is {name} ({reason})') from error


def _name_of(dataset: Sized, index: int) -> str:
    """The path of a sample, where the data set tells it."""
    try:
        info = dataset.get_data_info(index)
        return str(info.get('img_path') or info['filename'])
    except Exception:
        return f'sample {index} of {type(dataset).__name__}'


def build_train_loader(runner: Runner, loader: DataLoader | dict, endless: bool) -> DataLoader:
    """A loader of training data whose batches can begin anywhere and whose samples are seeded by their place.

    A loader that is built already stays as it is, and training on it cannot be taken up exactly.
    """
    if not isinstance(loader, dict):
        return loader
    cfg = dict(loader)
    if isinstance(cfg['dataset'], (list, tuple)):  # takes no attributes
        cfg['dataset'] = Subset(cfg['dataset'], range(len(cfg['dataset'])))
    drop_last = cfg.get('batch_sampler') is None and cfg.pop('drop_last', False)  # else PyTorch refuses it
    cfg['batch_sampler'] = dict(type=PlacedBatchSampler, batches=cfg.get('batch_sampler'),
                                drop_last=drop_last, endless=endless)
    built = runner.build_dataloader(cfg, runner.seed, runner._randomness_cfg.get('diff_rank_seed', False))
    built.dataset.__getitems__ = SampleReader(built.dataset, runner.seed)  # PyTorch asks for it by this name
    return built


def begin_at(loader: DataLoader, epoch: int, batch: int) -> None:
    """The next pass over ``loader`` begins at this batch of this epoch."""
    if isinstance(loader.batch_sampler, PlacedBatchSampler):
        loader.batch_sampler.epoch, loader.batch_sampler.first = epoch, batch
    elif batch:
        print_log('the data loader was built before the Runner and begins its epoch anew', logger='current',
                  level=logging.WARNING)
