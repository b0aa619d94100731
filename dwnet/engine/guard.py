"""Steps that would ruin the weights are left out, on all processes together."""
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from mmengine.dist import get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dwnet.errors import UserError

from .checkpoints import is_gathering


@HOOKS.register_module()
class GuardHook(Hook):
    """Skips the optimiser's step where the loss or the gradients' norm is not finite on any process.

    The gradients are taken away before the optimiser looks at them, so neither weights nor moments move, and the
    buffers, which a forward pass has changed by then, such as BatchNorm's statistics, are put back. What float16's
    loss scale skips while the loss is finite is its business and not counted.

    Args:
        in_a_row: As many skipped steps, one behind the other, end the training; each process saves its batch.
    """
    priority = 'ABOVE_NORMAL'  # before averages of the weights are taken

    def __init__(self, in_a_row: int = 20) -> None:
        self.in_a_row = in_a_row
        self.skipped = self.row = 0
        self._gathering = False  # gradients, of more than one pass
        self._verdict: bool | None = None  # on the step; None before the optimiser was called

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        for part in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            part.optimizer.register_step_pre_hook(self._judge)
        runner.model.register_forward_hook(self._see_losses)
        self._buffers = list(runner.model.buffers())
        self._saved = [buffer.clone() for buffer in self._buffers]
        self._device = next(runner.model.parameters()).device

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if self._gathering:
            return
        self._gathering, self._verdict = True, None
        self._finite = torch.tensor(True, device=self._device)
        self._copy(self._buffers, self._saved)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if is_gathering(runner.optim_wrapper):
            return
        self._gathering = False
        if self._verdict is None:  # the loss scale skipped the step
            self._verdict = self._agreed(self._finite)
        if self._verdict:
            self.row = 0
            return
        self._copy(self._saved, self._buffers)
        self.skipped, self.row = self.skipped + 1, self.row + 1
        runner.message_hub.update_scalar('train/skipped_steps', self.skipped)
        runner.logger.warning(f'step {runner.iter + 1} is skipped: the loss or the gradients are not finite '
                              f'({self.skipped} skipped in all, {self.row} in a row)')
        if self.row >= self.in_a_row:
            path = Path(runner.work_dir, f'not_finite_step{runner.iter + 1}_rank{get_rank()}.pth')
            torch.save(as_plain(data_batch), path)
            raise UserError(f'{self.row} steps in a row had a loss or gradients that are not finite; the last batch is '
                            f'in {path}. Look at it, lower the learning rate, or clip gradients '
                            '(optim_wrapper.clip_grad)')

    def _see_losses(self, model: nn.Module, args: tuple, losses: Any) -> None:
        if not model.training or not isinstance(losses, dict):
            return
        for name, value in losses.items():
            for loss in value if isinstance(value, (list, tuple)) else [value]:
                if 'loss' in name and isinstance(loss, Tensor):
                    self._finite = self._finite & loss.detach().isfinite().all()

    def _judge(self, optimizer: torch.optim.Optimizer, *_) -> None:
        parameters = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if isinstance(norm, DTensor):  # under FSDP each process knows its share
            norm = norm.full_tensor()
        self._verdict = self._agreed(self._finite & norm.isfinite()) and self._verdict is not False
        if not self._verdict:
            for parameter in parameters:
                parameter.grad = None  # the optimiser passes over such a parameter

    @staticmethod
    def _agreed(fine: Tensor) -> bool:
        """Whether all processes are fine; the step waits here for the GPU."""
        flag = fine.to(torch.int32)
        if is_distributed():
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
        return bool(flag)

    @staticmethod
    @torch.no_grad()
    def _copy(source: list[Tensor], target: list[Tensor]) -> None:
        if source:
            torch._foreach_copy_(target, source)


def as_plain(data: Any) -> Any:
    """A batch in tensors, numbers and text alone, which load without running code."""
    if isinstance(data, (Tensor, str, int, float, bool, type(None))):
        return data
    if isinstance(data, np.ndarray):
        return torch.from_numpy(data.copy()) if data.dtype.kind in 'biuf' else data.tolist()
    if isinstance(data, BaseDataElement):
        return {key: as_plain(value) for key, value in [*data.metainfo_items(), *data.items()]}
    if isinstance(data, dict):
        return {str(key): as_plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set)):
        return [as_plain(value) for value in data]
    masks = getattr(data, 'masks', None)  # mmdet's BitmapMasks and PolygonMasks
    if masks is not None:
        return as_plain(masks)
    return as_plain(data.tensor) if isinstance(getattr(data, 'tensor', None), Tensor) else str(data)
