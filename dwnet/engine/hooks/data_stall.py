"""Measures how long a training waits for its data, and says what may help.

A slow disk, too few workers or large images leave a GPU idle unnoticed (mmpretrain#1927, #1824).
"""
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


class Waiting:
    """Sums the seconds in which a training loop waits for batches.

    The first batch does not count, since the workers are starting.

    Attributes:
        seconds: Time spent waiting.
        batches: Number of batches waited for.
    """

    def __init__(self) -> None:
        self.seconds, self.batches = 0., 0
        self._begun = False

    def during(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the batches, and counts the waiting time."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            if self._begun:
                self.seconds += time.perf_counter() - start
                self.batches += 1
            self._begun = True
            yield batch


@HOOKS.register_module()
class WaitingHook(Hook):
    """Warns once, with advice, if a training waits for data for a large share of the time; logs the share at the end.

    Time in validation and in writing checkpoints does not count.

    Args:
        share: Share of the time from which the hook warns.
        after: Number of batches to measure before the warning.
    """

    def __init__(self, share: float = .2, after: int = 50) -> None:
        self.share, self.after = share, after
        self._said = False
        self._busy, self._start = 0., 0.  # seconds in steps

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self._start = time.perf_counter()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        waiting = getattr(runner.train_loop, 'waiting', None)
        if waiting is None or not waiting.batches:  # skip the first step, which is slower
            return
        self._busy += time.perf_counter() - self._start
        if not self._said and waiting.batches >= self.after:
            self._said = True
            if self._share_of(waiting) > self.share and is_main_process():
                runner.logger.warning(f'{self._line(waiting)}: {advice(runner)}')

    def after_train(self, runner: Runner) -> None:
        waiting = getattr(runner.train_loop, 'waiting', None)
        if waiting is not None and waiting.batches:
            runner.logger.info(self._line(waiting))

    def _share_of(self, waiting: Waiting) -> float:
        return waiting.seconds / max(1e-9, waiting.seconds + self._busy)

    def _line(self, waiting: Waiting) -> str:
        return f'waiting for data: {self._share_of(waiting):.0%} of the time'


def advice(runner: Runner) -> str:
    """Settings that may shorten the waiting, the likeliest first."""
    workers = runner.train_dataloader.num_workers
    cores = max(1, (os.cpu_count() or 1) // int(os.environ.get('LOCAL_WORLD_SIZE', 1)))  # for this process
    tips = []
    if workers < cores:
        tips.append(f'more workers (train_dataloader.num_workers={cores}, now {workers})')
    if workers and not runner.train_dataloader.persistent_workers:
        tips.append('train_dataloader.persistent_workers=True')
    threads = runner.cfg.get('env_cfg', {}).get('mp_cfg', {}).get('opencv_num_threads', 0)
    if workers and threads:
        tips.append(f'env_cfg.mp_cfg.opencv_num_threads=0 (now {threads}: the workers compete)')
    return ', '.join([*tips, 'images on disk not much larger than the input size', 'a local disk'])
