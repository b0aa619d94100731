"""Skips training steps whose loss or gradients are not finite, on all processes together."""
from pathlib import Path
from typing import Any, NamedTuple

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
from torch.utils.hooks import RemovableHandle

from dwnet.engine.checkpoints import is_gathering
from dwnet.errors import UserError

from .preemption import PreemptionHook


class _Step(NamedTuple):
    """A step whose flags the processes have agreed on, and which the host has not read yet."""
    number: int
    batch: Any
    flags: Tensor  # on the host: not finite; SIGTERM
    copied: torch.cuda.Event | None  # recorded after the copy of the flags


@HOOKS.register_module()
class GuardHook(Hook):
    """Skips the optimiser's step if the loss or the gradients' norm is not finite on any process.

    The optimiser does not see the gradients, so weights and moments stay as they are. Buffers that the forward pass
    has changed, such as BatchNorm's statistics, are restored. Steps that float16's loss scale skips while the loss is
    finite do not count.

    The processes agree in one all-reduce for each step, which also asks about SIGTERM. On a GPU a fused Adam or AdamW
    skips by a flag on the GPU; the host reads the flag in the next step, long after it was set, so nothing waits. For
    any other optimiser the host must read the flag before the optimiser's step.

    Args:
        in_a_row: So many skipped steps in a row end the training; each process saves its last batch.
    """
    priority = 'ABOVE_NORMAL'  # before the EMA of the weights is updated

    def __init__(self, in_a_row: int = 20) -> None:
        self.in_a_row = in_a_row
        self.skipped = self.row = 0
        self._gathering = False  # gradients are being accumulated
        self._flags: Tensor | None = None  # flags of the step; None until the optimiser is called
        self._unread: _Step | None = None
        self._optimizers: list[torch.optim.Optimizer] = []
        self._handles: list[RemovableHandle] = []

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        parts = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self._optimizers = [part.optimizer for part in parts]
        self._device = next(runner.model.parameters()).device
        self._reads_late = reads_late(self._device, self._optimizers)
        self._handles = [optimizer.register_step_pre_hook(self._judge) for optimizer in self._optimizers]
        self._handles.append(runner.model.register_forward_hook(self._see_losses))
        self._buffers = list(runner.model.buffers())
        self._saved = [buffer.clone() for buffer in self._buffers]
        self._preemption = next((hook for hook in runner.hooks if isinstance(hook, PreemptionHook)), None)
        if self._preemption is not None:
            self._preemption.guarded = True

    def close(self) -> None:
        """Removes the hooks from the model and the optimiser."""
        for handle in self._handles:
            handle.remove()
        for optimizer in self._optimizers:
            vars(optimizer).pop('found_inf', None)
        self._handles, self._optimizers, self._unread = [], [], None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if self._gathering:
            return
        self._gathering, self._flags = True, None
        self._finite = torch.ones((), dtype=torch.bool, device=self._device)
        self._copy(self._buffers, self._saved)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if is_gathering(runner.optim_wrapper):
            return
        self._gathering = False
        if self._flags is None:  # the loss scale skipped the step
            self._agree(~self._finite)
        if self._reads_late:
            self._put_back_if(self._flags[0] > 0)
            self._read(runner)
        copy, copied = self._flags.to('cpu', non_blocking=True), None
        if copy is not self._flags:
            copied = torch.cuda.Event()
            copied.record()
        self._unread = _Step(runner.iter + 1, data_batch, copy, copied)
        if not self._reads_late:
            self._read(runner)

    def after_train(self, runner: Runner) -> None:
        self._read(runner)

    def _read(self, runner: Runner) -> None:
        """Reads the flags of the last step, unless the host has read them already."""
        if self._unread is None:
            return
        (number, batch, flags, copied), self._unread = self._unread, None
        if copied is not None:
            copied.synchronize()
        not_finite, asked = flags.tolist()
        if asked and self._preemption is not None:
            self._preemption.any_asked = True
        if not not_finite:
            self.row = 0
            return
        if not self._reads_late:
            self._copy(self._saved, self._buffers)
        self.skipped, self.row = self.skipped + 1, self.row + 1
        runner.message_hub.update_scalar('train/skipped_steps', self.skipped)
        runner.logger.warning(f'step {number} is skipped: the loss or the gradients are not finite '
                              f'({self.skipped} skipped in all, {self.row} in a row)')
        if self.row >= self.in_a_row:
            path = Path(runner.work_dir, f'not_finite_step{number}_rank{get_rank()}.pth')
            torch.save(as_plain(batch), path)
            raise UserError(f'{self.row} steps in a row had a loss or gradients that are not finite; the last batch is '
                            f'in {path}. Inspect that batch, lower the learning rate, or clip gradients '
                            '(optim_wrapper.clip_grad)')

    def _see_losses(self, model: nn.Module, args: tuple, losses: Any) -> None:
        if not torch.is_grad_enabled() or not isinstance(losses, dict):  # a validation's losses have no gradient
            return
        for name, value in losses.items():
            for loss in value if isinstance(value, (list, tuple)) else [value]:
                if 'loss' in name and isinstance(loss, Tensor):
                    self._finite = self._finite & loss.detach().isfinite().all()

    def _judge(self, optimizer: torch.optim.Optimizer, *_) -> None:
        parameters = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        # under FSDP each process checks its own shard
        gradients = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in parameters]
        finite = nn.utils.get_total_norm(gradients).isfinite()
        # during the step of a fused optimiser, the loss scale sets found_inf together with grad_scale
        by_scale = optimizer.found_inf if hasattr(optimizer, 'grad_scale') else None
        if by_scale is not None:
            finite = finite | (by_scale > 0)
        self._agree(~(self._finite & finite))
        if self._reads_late:
            not_finite = self._flags[0]
            optimizer.found_inf = not_finite if by_scale is None else torch.maximum(not_finite, by_scale.squeeze())
        elif self._flags[0]:
            for parameter in parameters:
                parameter.grad = None  # the optimiser skips parameters without a gradient

    def _agree(self, not_finite: Tensor) -> None:
        """Sets the flags: whether any process has non-finite values, and whether any process was asked to stop."""
        asked = self._preemption is not None and self._preemption.asked
        flags = torch.stack([not_finite, torch.full_like(not_finite, asked)]).float()
        if is_distributed():
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        if not self._reads_late:
            flags = flags.cpu()  # waits for the GPU
        self._flags = flags if self._flags is None else torch.maximum(self._flags, flags)

    @torch.no_grad()
    def _put_back_if(self, skipped: Tensor) -> None:
        for buffer, saved in zip(self._buffers, self._saved):
            torch.where(skipped, saved, buffer, out=buffer)

    @staticmethod
    @torch.no_grad()
    def _copy(source: list[Tensor], target: list[Tensor]) -> None:
        if source:
            torch._foreach_copy_(target, source)


def reads_late(device: torch.device, optimizers: list[torch.optim.Optimizer]) -> bool:
    """Whether the flags can stay on the GPU: these optimisers skip a step by ``found_inf``, a tensor."""
    return device.type == 'cuda' and all(
        isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
        and all(group.get('fused') for group in optimizer.param_groups) for optimizer in optimizers)


def as_plain(data: Any) -> Any:
    """Converts a batch to tensors, numbers and text, which load without running code."""
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
