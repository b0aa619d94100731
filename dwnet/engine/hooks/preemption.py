"""Saves the training at SIGTERM, the signal by which clusters end a job, and then ends it."""
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

EXIT_CODE = 128 + signal.SIGTERM  # 143, as a shell reports for a process that SIGTERM ended


class Preempted(Exception):
    """Raised when the training was asked to stop.

    Args:
        message: What was saved, and how to go on.
        alone: Other processes may not have been asked; those learn of the end from
            :mod:`dwnet.engine.distributed.peer_liveness`.
    """

    def __init__(self, message: str, alone: bool = False) -> None:
        super().__init__(message)
        self.alone = alone


class OutlastSigterm:
    """Makes a data worker ignore SIGTERM from the launcher, because the last step still needs the worker.

    If SIGTERM comes from the training process itself, the worker exits; that is how Python stops its children.

    Args:
        then: The ``worker_init_fn`` of the config, called afterwards.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then, self.training = then, os.getpid()

    def __call__(self, worker: int) -> None:
        if hasattr(signal, 'sigwaitinfo'):  # on Linux; unlike a handler, it tells the sender
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
    """Saves a checkpoint and ends the training after the step in which any process got SIGTERM; ``--resume`` continues.

    While gradients are accumulated, the hook waits for the optimiser's step. SIGTERM during a validation ends the
    training after the current batch, without a checkpoint; the config's interval decides what was saved before. Before
    the first step SIGTERM ends the process as it ends any program.
    """
    priority = 'LOWEST'  # after schedules and regular checkpoints

    def __init__(self) -> None:
        self.asked = False  # this process got SIGTERM
        self.any_asked = False  # any process got SIGTERM; the same on all processes
        self.guarded = False  # GuardHook asks the processes, and sets any_asked
        self._restore: Callable[[], Any] | None = None

    def before_train(self, runner: Runner) -> None:
        if threading.current_thread() is threading.main_thread():  # other threads cannot set handlers
            previous = signal.signal(signal.SIGTERM, self._ask)
            self._restore = partial(signal.signal, signal.SIGTERM, previous or signal.SIG_DFL)
        self._device = next(runner.model.parameters()).device

    def close(self) -> None:
        """Restores the former handler of SIGTERM."""
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
