"""Writes checkpoints that stay whole when a process is killed or the disk is full; finds the newest whole one."""
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from dwnet.errors import UserError
from dwnet.weights.loading import read_checkpoint

PREEMPTED = 'preempted.pth'  # the checkpoint that a training writes at SIGTERM


def replace_durably(unfinished: Path, path: Path) -> None:
    """Renames a complete file; flushes the content before and the name after, so that a crash loses neither."""
    _sync(unfinished)
    os.replace(unfinished, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    if os.name == 'nt':  # Windows opens no folder, and flushes no file that is open for reading
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def point_to(checkpoint: str, work_dir: str) -> None:
    """Makes ``last_checkpoint`` name ``checkpoint``, which must be complete."""
    pointer = Path(work_dir, 'last_checkpoint')
    unfinished = pointer.with_name('.last_checkpoint.unfinished')
    unfinished.write_text(checkpoint)
    replace_durably(unfinished, pointer)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook in a safe order: writes the checkpoint, then the pointer to it, then removes the oldest."""

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if is_main_process():
            for torn in Path(runner.work_dir).glob('.*.unfinished'):
                torn.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
                               save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
                               backend_args=self.backend_args, **self.args)
        if is_main_process():
            point_to(self.last_ckpt, runner.work_dir)
            Path(runner.work_dir, PREEMPTED).unlink(missing_ok=True)  # older than the new checkpoint
            if outdated is not None:
                old = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
                if self.file_backend.isfile(old):
                    self.file_backend.remove(old)


def is_gathering(wrapper: OptimWrapper | OptimWrapperDict) -> bool:
    """Whether gradients are being accumulated over several passes (``accumulative_counts``)."""
    return not isinstance(wrapper, OptimWrapperDict) and not wrapper.should_update()


def gathered_gradients(runner: Runner) -> dict[str, Tensor]:
    """Those that wait, by the names of their parameters; none of FSDP."""
    if not is_gathering(runner.optim_wrapper) or runner.cfg.get('strategy') == 'fsdp':
        return {}
    return {name: p.grad for name, p in _inner(runner.model).named_parameters() if p.grad is not None}


def _inner(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


@HOOKS.register_module()
class GatheredGradientsHook(Hook):
    """Keeps them in checkpoints, which mmengine leaves them out of."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if 'optimizer' in checkpoint and (gradients := gathered_gradients(runner)):
            checkpoint['gradients'] = {name: gradient.cpu() for name, gradient in gradients.items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            parameters = dict(_inner(runner.model).named_parameters())
            for name, gradient in checkpoint.get('gradients', {}).items():
                parameters[name].grad = gradient.to(parameters[name].device)


def pointed_at(work_dir: str) -> str:
    """The checkpoint that ``last_checkpoint`` names; empty without such a file."""
    pointer = Path(work_dir, 'last_checkpoint')
    return pointer.read_text(errors='replace').strip() if pointer.is_file() else ''


def checkpoints_in(work_dir: str) -> list[Path]:
    """Checkpoints of a training in the order to try: first the one that ``last_checkpoint`` names, then by age."""
    folder = Path(work_dir)
    files = sorted((f for f in folder.glob('*.pth')
                    if f.is_file() and not f.name.startswith(('best_', 'not_finite_'))),
                   key=lambda f: f.stat().st_mtime_ns, reverse=True)
    if named := pointed_at(work_dir):
        # after the work dir was moved, only the file's name is right
        named = next((f for f in (folder / Path(named).name, Path(named)) if f.is_file()), None)
        files = [named, *(f for f in files if f != named)] if named else files
    return files


def check_training_state(checkpoint: dict[str, Any], source: str, runner: Runner) -> None:
    """Finds faults in a training's state that mmengine would load in silence, or fail on steps later.

    Also moves the recorded path of the best checkpoint into this work dir: mmengine removes that file when a better
    checkpoint comes, and a hostile file could name any path.

    Args:
        checkpoint: Content of the file.
        source: Name of the file, for the message.
        runner: The Runner, with optimiser and schedulers built.

    Raises:
        UserError: If the training's state is incomplete, or belongs to another kind of training.
    """
    parts = [('optimizer', runner.optim_wrapper.state_dict())]
    if runner.param_schedulers:
        parts.append(('param_schedulers', [scheduler.state_dict() for scheduler in runner.param_schedulers]
                      if isinstance(runner.param_schedulers, list) else {}))
    if 'ema_state_dict' in checkpoint and not any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise UserError(f'{source} is of a training that averages its weights: resume it with --ema, or with the '
                        'EMAHook of its config; to start from the averages, set load_from')
    needed = ('meta', 'message_hub', *(name for name, _ in parts))
    try:
        if missing := [key for key in needed if key not in checkpoint]:
            raise ValueError(f"{', '.join(missing)} missing")
        for key in ('epoch', 'iter'):
            if type(count := checkpoint['meta'].get(key)) is not int or count < 0:
                raise ValueError(f'{key} {count!r}')
        for name, state in parts:
            if not _alike(state, checkpoint[name]):
                raise ValueError(f'{name} of another training')
        if not isinstance(runner.optim_wrapper, OptimWrapperDict):
            _check_moments(checkpoint['optimizer']['state'], runner.optim_wrapper.param_groups)
        info = checkpoint['message_hub']['runtime_info']
        if not all(type(step) is int for step in info.get('keep_ckpt_ids', [])):
            raise ValueError('keep_ckpt_ids that are no numbers')
        for key, value in info.items():
            if key.startswith('best_ckpt'):
                info[key] = os.path.join(runner.work_dir, f"best_{Path(value).name.removeprefix('best_')}")
    except Exception as error:  # an altered state may raise anything
        raise UserError(f'{source} holds no state of this training ({error}), so nothing can be resumed from it; to '
                        'start from its weights, set load_from') from error


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether the state ``theirs`` can replace ``ours``.

    Flags may be missing, if newer versions added them, or be None, as ``fused`` is if PyTorch chooses.
    """
    if isinstance(ours, Mapping):
        return isinstance(theirs, Mapping) and all(
            _alike(value, theirs[key]) if key in theirs else value is None or isinstance(value, bool)
            for key, value in ours.items())
    if isinstance(ours, (list, tuple)):
        return isinstance(theirs, (list, tuple)) and len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if ours is None or theirs is None and isinstance(ours, bool):
        return theirs is None or isinstance(theirs, (bool, int, float))
    return isinstance(theirs, (bool, int, float) if isinstance(ours, (bool, int, float)) else type(ours))


def _check_moments(state: Mapping[int, Mapping[str, Any]], groups: list[dict]) -> None:
    parameters = [parameter for group in groups for parameter in group['params']]
    names = set().union(*state.values())
    for index, moments in state.items():
        for name in names:
            value = moments.get(name)
            if name == 'momentum_buffer' and value is None:  # before the parameter's first step
                continue
            if not isinstance(value, (Tensor, int, float)):
                raise ValueError(f'{name} of parameter {index} missing')
            value = torch.as_tensor(value)
            # PyTorch's optimisers keep a scalar step, and moments in the parameter's shape
            shape = {'step': ()}.get(name, parameters[index].shape)
            if name in ('step', 'exp_avg', 'exp_avg_sq', 'momentum_buffer') and (
                    value.shape != shape or value.dtype.itemsize < 2 or value.is_complex()):
                raise ValueError(f'{name} of parameter {index} of another shape or kind')


def newest_whole_checkpoint(work_dir: str) -> Path | None:
    """The checkpoint to resume from, or None. Damaged checkpoints are skipped, and the log names them.

    Raises:
        UserError: If all checkpoints are damaged.
    """
    files = checkpoints_in(work_dir)
    for file in files:
        try:
            checkpoint = read_checkpoint(str(file))
            if missing := {'meta', 'optimizer', 'message_hub'} - checkpoint.keys():
                raise UserError(f"{file} holds no state of a training ({', '.join(sorted(missing))} is missing)")
        except UserError as error:
            print_log(f'skipped: {error}', logger='current', level=logging.WARNING)
        else:
            return file
    if files:
        raise UserError(f'none of the {len(files)} checkpoints in {work_dir} can be resumed from; the log says why. '
                        'Remove them to train from the beginning')
    return None
