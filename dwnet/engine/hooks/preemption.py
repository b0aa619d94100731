"""SIGTERM, by which clusters end a job: the training is saved where it is, then ends."""
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import torch
import torch.distributed
from mmengine.dist import barrier, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from dwnet.engine.checkpoints import PREEMPTED, is_gathering, point_to

EXIT_CODE = 128 + signal.SIGTERM  # 143, what a shell reports of a process that SIGTERM ended


class Preempted(Exception):
    """The training was asked to stop.

    Args:
        message: What was saved.
        alone: Others may not have been asked.
    """

    def __init__(self, message: str, alone: bool = False) -> None:
        super().__init__(message)
        self.alone = alone


class OutlastSigterm:
    """Start-up of a data worker: launchers send SIGTERM to it, too, but it is needed for the last step.

    Of its training's process it obeys the signal: Python ends its children so.

    Args:
        then: What else is done at its start.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then, self.training = then, os.getpid()

    def __call__(self, worker: int) -> None:
        if hasattr(signal, 'sigwaitinfo'):  # it tells the sender, as handlers do not; Linux has it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=self._obey, args=(self.training, ), daemon=True).start()
        if self.then is not None:
            self.then(worker)

    @staticmethod
    def _obey(training: int) -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
            pass
        os._exit(0)


@HOOKS.register_module()
class PreemptionHook(Hook):
    """After the step in which SIGTERM came to any process, all save together and end; ``--resume`` goes on there.

    While gradients are gathered over several steps it waits for the last of them. A validation is cut short: the
    training before it has been saved, or is saved at the interval that the config names.
    """
    priority = 'LOWEST'  # behind schedules and regular checkpoints

    def __init__(self) -> None:
        self.asked = False  # this process
        self.any_asked = False  # of all processes, as all of them know it
        self.guarded = False  # GuardHook asks them, and sets any_asked
        self._restore: Callable[[], Any] | None = None

    def before_train(self, runner: Runner) -> None:
        if threading.current_thread() is threading.main_thread():  # Python lets no other one
            previous = signal.signal(signal.SIGTERM, self._ask)
            self._restore = partial(signal.signal, signal.SIGTERM, previous or signal.SIG_DFL)
        self._device = next(runner.model.parameters()).device

    def close(self) -> None:
        """Gives SIGTERM its former handler."""
        if self._restore is not None:
            self._restore()
            self._restore = None

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if is_gathering(runner.optim_wrapper) or not self._is_due():
            return
        runner.save_checkpoint(runner.work_dir, PREEMPTED, by_epoch=False)
        if is_main_process():
            point_to(f'{runner.work_dir}/{PREEMPTED}', runner.work_dir)
        barrier()  # launchers end all processes when one ends
        raise Preempted(f'SIGTERM: the training is saved in {runner.work_dir}/{PREEMPTED} after step '
                        f'{runner.iter + 1}; --resume goes on from there')

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.asked:
            raise Preempted('SIGTERM during a validation; --resume goes on from the last checkpoint', alone=True)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def _is_due(self) -> bool:
        if not is_distributed():
            return self.asked
        if not self.guarded:
            flag = torch.tensor(int(self.asked), device=self._device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            self.any_asked = bool(flag)
        return self.any_asked
