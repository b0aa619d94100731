"""mmengine's loops of validations and tests, which go on without files that cannot be read.

The preflight finds damaged files before a training, but a file may be damaged later, or in a way that only decoding
shows. A validation then begins again without the file, in all processes, so that no result counts twice.
"""
from collections.abc import Iterator
from typing import Any

from mmengine.dataset import DefaultSampler
from mmengine.dist import all_reduce
from mmengine.registry import LOOPS
from mmengine.runner import Runner, TestLoop, ValLoop
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.loops import _parse_losses
from torch.utils.data import DataLoader, Sampler

from .reproducible import SampleReader


class _ScoredSampleReader(SampleReader):
    """Reads the samples of a validation or a test; another sample stands in for one that cannot be read."""

    def __call__(self, indices: list[int]) -> list[Any]:
        return [self.read(index, 0, index) for index in indices]


class _KeptSampler(Sampler):
    """Deals the samples that are kept to the processes, in order, as mmengine does."""

    def __init__(self, kept: list[int]) -> None:
        self.kept, self.places = kept, DefaultSampler(kept, shuffle=False, seed=0)

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[int]:
        return (self.kept[place] for place in self.places)


class _ScoringLoop(BaseLoop):
    """A loop that begins again without the samples that could not be read."""
    part: str

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args, **kwargs) -> None:
        super().__init__(runner, dataloader, *args, **kwargs)
        dataset = self.dataloader.dataset
        self._reader = _ScoredSampleReader(dataset, runner.seed, 'validation' if self.part == 'val' else self.part)
        self._left_out = 0
        if isinstance(dataloader, dict) and hasattr(dataset, '__dict__'):  # a list takes no attribute
            dataset.__getitems__ = self._reader  # PyTorch's fetcher calls this method

    def run(self) -> dict:
        self.runner.call_hook(f'before_{self.part}')
        losses = getattr(self, f'{self.part}_loss')
        # once, since EMA's hook exchanges the weights; hooks that count begin anew at batch 0
        self.runner.call_hook(f'before_{self.part}_epoch')
        self.runner.model.eval()
        whole = False
        while not whole:
            losses.clear()
            for i, batch in enumerate(self.dataloader):
                self.run_iter(i, batch)
            whole = not self._leave_out()
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset) - self._left_out)
        if losses:
            metrics.update(_parse_losses(losses, self.part))
        self.runner.call_hook(f'after_{self.part}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.part}')
        return metrics

    def _leave_out(self) -> bool:
        """Leaves out what any process could not read; returns whether the pass has to be made again."""
        unreadable = self._reader.unreadable.int()
        all_reduce(unreadable, 'max')
        before, self._left_out = self._left_out, int(unreadable.sum())
        if self._left_out == before:
            return False
        self.runner.logger.warning(
            f'{self._left_out} of {len(unreadable)} {self._reader.of} samples cannot be read and are left out: scores '
            'from here on are not quite comparable with earlier ones')
        self.dataloader.batch_sampler.sampler = _KeptSampler((unreadable == 0).nonzero().flatten().tolist())
        for metric in self.evaluator.metrics:
            metric.results.clear()
        return True


@LOOPS.register_module()
class ValidationLoop(_ScoringLoop, ValLoop):
    """mmengine's ``ValLoop``, which leaves out samples that cannot be read."""
    part = 'val'


@LOOPS.register_module()
class TestingLoop(_ScoringLoop, TestLoop):
    """mmengine's ``TestLoop``, which leaves out samples that cannot be read."""
    part = 'test'
