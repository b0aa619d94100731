"""A progress bar with the time left, for training, validation, testing and inference."""
import logging
import sys
import time

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressLine:
    """A bar for each task on standard error if that is a terminal; otherwise plain lines on standard output.

    Args:
        plain: Print plain lines if there is no terminal.
        plain_interval: Seconds between two plain lines.

    Example:
        >>> with ProgressLine() as progress:
        ...     progress.add('images', 3)
        ...     for _ in range(3):
        ...         progress.advance('images')
    """

    def __init__(self, plain: bool = True, plain_interval: float = 20.) -> None:
        self.live = sys.stderr.isatty()
        self._plain, self._interval = plain and not self.live, plain_interval
        self._printed = time.monotonic()
        self._tasks: dict = {}
        self._bar = Progress(
            TextColumn('{task.description:>5}'), BarColumn(), MofNCompleteColumn(),
            TextColumn('{task.percentage:>3.0f} %'), TimeRemainingColumn(), TextColumn('left'),
            console=Console(stderr=True), disable=not self.live)
        self._bar.start()

    def add(self, name: str, total: int, completed: int = 0) -> None:
        """Begins a task of ``total`` steps."""
        self._tasks[name] = self._bar.add_task(name, total=total, completed=completed)

    def advance(self, name: str, steps: int = 1) -> None:
        """Counts ``steps`` of a task as done."""
        self._bar.advance(self._tasks[name], steps)
        if self._plain and time.monotonic() - self._printed >= self._interval:
            self._printed = time.monotonic()
            task = next(t for t in self._bar.tasks if t.id == self._tasks[name])
            left = '?' if task.time_remaining is None else f'{task.time_remaining:.0f}'
            print(f'{name}: {task.completed:.0f} of {task.total:.0f}, {task.percentage:.0f} %, '
                  f'{left} s left', flush=True)

    def remove(self, name: str) -> bool:
        """Removes a task; returns whether other tasks are left."""
        self._bar.remove_task(self._tasks.pop(name))
        return bool(self._tasks)

    def close(self) -> None:
        """Ends the bars and restores the terminal."""
        self._bar.stop()

    def __enter__(self) -> 'ProgressLine':
        return self

    def __exit__(self, *_) -> None:
        self.close()


@HOOKS.register_module()
class ProgressHook(Hook):
    """Draws a bar on a terminal; elsewhere prints a plain line now and then.

    Plain lines are printed only if the log is silent (``log_level`` above INFO), since the log also tells the time
    left.

    Args:
        plain_interval: Seconds between two plain lines.
    """

    priority = 'VERY_LOW'

    def __init__(self, plain_interval: float = 20.) -> None:
        self.plain_interval = plain_interval
        self._line: ProgressLine | None = None

    def before_train(self, runner: Runner) -> None:
        self._start(runner, 'train', runner.max_iters, runner.iter)

    def before_val(self, runner: Runner) -> None:
        self._start(runner, 'val', len(runner.val_dataloader))

    def before_test(self, runner: Runner) -> None:
        self._start(runner, 'test', len(runner.test_dataloader))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._advance('train')

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._advance('val')

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self._advance('test')

    def after_train(self, runner: Runner) -> None:
        self.close()

    def after_val(self, runner: Runner) -> None:
        if self._line is not None and not self._line.remove('val'):  # otherwise the training goes on
            self.close()

    def after_test(self, runner: Runner) -> None:
        self.close()

    def _start(self, runner: Runner, name: str, total: int, completed: int = 0) -> None:
        if not is_main_process():
            return
        if self._line is None:
            silent = min(h.level for h in runner.logger.handlers) > logging.INFO
            self._line = ProgressLine(silent, self.plain_interval)
            if self._line.live:  # on the same stream, the log's lines appear above the bar
                for handler in runner.logger.handlers:
                    if type(handler) is logging.StreamHandler:
                        handler.setStream(sys.stderr)
        self._line.add(name, total, completed)

    def _advance(self, name: str) -> None:
        if self._line is not None:
            self._line.advance(name)

    def close(self) -> None:
        """Ends the bars and restores the terminal."""
        if self._line is not None:
            self._line.close()
            self._line = None
