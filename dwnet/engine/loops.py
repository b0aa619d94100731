"""mmengine's two training loops, which here can begin inside an epoch; see :mod:`dwnet.engine.reproducible`."""
from mmengine.dist import get_world_size
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.utils import calc_dynamic_intervals
from torch import nn
from torch.utils.data import DataLoader

from .hooks.data_stall import Waiting
from .reproducible import begin_at, build_train_loader


def validate_when_due(loop: EpochBasedTrainLoop | IterBasedTrainLoop, done: int, last: int) -> None:
    """Validates after every ``val_interval``-th epoch or step, and after the last one."""
    loop._decide_current_val_interval()
    if loop.runner.val_loop is not None and done >= loop.val_begin and (done % loop.val_interval == 0 or done == last):
        loop.runner.val_loop.run()


@LOOPS.register_module()
class EpochLoop(EpochBasedTrainLoop):
    """Trains by epochs. A checkpoint of an epoch's end may be older than its validation, which then runs first."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args, **kwargs) -> None:
        super().__init__(runner, build_train_loader(runner, dataloader, endless=False), *args, **kwargs)
        self._first = 0  # first batch of the next epoch
        self.waiting = Waiting()

    def go_on(self, meta: dict) -> None:
        """Finds the place in the epoch of a checkpoint's ``meta``."""
        steps = len(self.dataloader)
        if meta.get('steps_an_epoch', steps) == steps:
            self._first = min(max(0, self._iter - self._epoch * steps), steps)
        else:
            self.runner.logger.warning(
                f"an epoch had {meta['steps_an_epoch']} steps and has {steps} now (other data, batches, processes): "
                'the training begins a whole epoch, so the resume is not exact')

    def run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        if self._iter and not self._first:
            validate_when_due(self, self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            validate_when_due(self, self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        first, self._first = self._first, 0
        begin_at(self.dataloader, self._epoch, first)
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for i, batch in enumerate(self.waiting.during(self.dataloader), start=first):
            self.run_iter(i, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class IterLoop(IterBasedTrainLoop):
    """Trains by steps over endless data; the data workers start when the first step is known, unlike in mmengine."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, max_iters: int, val_begin: int = 1,
                 val_interval: int = 1000, dynamic_intervals: list[tuple[int, int]] | None = None) -> None:
        BaseLoop.__init__(self, runner, build_train_loader(runner, dataloader, endless=True))
        self._max_iters, self._iter = int(max_iters), 0
        self._max_epochs, self._epoch = 1, 0  # to mmengine the training is one epoch
        self.val_begin, self.val_interval = val_begin, val_interval
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(val_interval, dynamic_intervals)
        self.stop_training = False
        self.waiting = Waiting()
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)

    def go_on(self, meta: dict) -> None:
        """Warns if a checkpoint's ``meta`` has other steps or processes: the data resume after as many batches."""
        own = dict(steps_an_epoch=len(self.dataloader), processes=get_world_size())
        if begun := {key: meta[key] for key, value in own.items() if meta.get(key, value) != value}:
            self.runner.logger.warning(
                f'the training began with {begun} and has {({key: own[key] for key in begun})} now (other data, '
                'batches, processes): the next images differ from those of an uninterrupted training')

    def run(self) -> nn.Module:
        begin_at(self.dataloader, 0, self._iter)
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        if self._iter:
            validate_when_due(self, self._iter, self._max_iters)
        batches = self.waiting.during(self.dataloader) if self._iter < self._max_iters else None
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            validate_when_due(self, self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model
