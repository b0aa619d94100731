"""Checkpoints that no kill and no full disk can tear, and the newest whole one to go on from."""
import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from dwnet.checkpoint import read_checkpoint
from dwnet.errors import UserError

PREEMPTED = 'preempted.pth'  # what a training writes when it is asked to stop


def replace_durably(unfinished: Path, path: Path) -> None:
    """Renames a file that is complete, when its content and then its name are sure to be on the disk."""
    _sync(unfinished)
    os.replace(unfinished, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def point_to(checkpoint: str, work_dir: str) -> None:
    """Makes ``last_checkpoint`` name a checkpoint that is whole."""
    pointer = Path(work_dir, 'last_checkpoint')
    unfinished = pointer.with_name('.last_checkpoint.unfinished')
    unfinished.write_text(checkpoint)
    replace_durably(unfinished, pointer)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook, in another order: the checkpoint, then the pointer to it, then the removal of the oldest."""

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
            Path(runner.work_dir, PREEMPTED).unlink(missing_ok=True)  # older than this one
            if outdated is not None:
                old = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
                if self.file_backend.isfile(old):
                    self.file_backend.remove(old)


def checkpoints_in(work_dir: str) -> list[Path]:
    """Checkpoints of a training, the one to try first in front: what ``last_checkpoint`` names, then by age."""
    folder, pointer = Path(work_dir), Path(work_dir, 'last_checkpoint')
    files = sorted((f for f in folder.glob('*.pth') if not f.name.startswith('best_')),
                   key=lambda f: f.stat().st_mtime_ns, reverse=True)
    if pointer.is_file() and (named := pointer.read_text(errors='replace').strip()):
        # a work dir that was moved still holds the file
        named = next((f for f in (folder / Path(named).name, Path(named)) if f.is_file()), None)
        files = [named, *(f for f in files if f != named)] if named else files
    return files


def newest_whole_checkpoint(work_dir: str) -> Path | None:
    """The checkpoint to resume from, None if there is none; damaged ones are passed over and named.

    Raises:
        UserError: If all are damaged.
    """
    files = checkpoints_in(work_dir)
    for file in files:
        try:
            checkpoint = read_checkpoint(str(file))
            if missing := {'meta', 'optimizer', 'message_hub'} - checkpoint.keys():
                raise UserError(f"{file} holds no state of a training ({', '.join(sorted(missing))} is missing)")
        except UserError as error:
            print_log(f'passed over: {error}', logger='current', level=30)
        else:
            return file
    if files:
        raise UserError(f'none of the {len(files)} checkpoints in {work_dir} can be resumed from; the log says why. '
                        'Remove them to train from the beginning')
    return None
