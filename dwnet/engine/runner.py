"""mmengine's Runner, for all three tasks, with what it lacks on today's PyTorch."""
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_gather_object, is_distributed, is_main_process, master_only
from mmengine.model import BaseTTAModel, is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from dwnet.checkpoint import load_weights, read_checkpoint
from dwnet.errors import UserError
from dwnet.models.layers import turn_on_recomputation

from .process_group import end_with_parent, join, set_environment
from .progress import ProgressHook
from .sharding import shard, shard_state
from .watch import watch_others


@RUNNERS.register_module(name='DWNetRunner')
class Runner(MMEngineRunner):
    """Trains, validates and tests a config of mmpretrain, mmdet or mmseg, as mmengine's Runner does.

    What differs:

    * Several processes work without a GPU, over gloo; what needs a GPU is replaced there, with a warning:
      SyncBN by BN, mixed precision by fp32.
    * A checkpoint that does not fit the model is an error.
    * A checkpoint is written beside its final name and renamed when it is whole.
    * Resuming does not execute the config text that a checkpoint may carry.
    * ``activation_checkpointing`` is of the non-reentrant form; mmengine's leaves modules without a gradient whose
      input needs none (mmengine#1425).
    * ``strategy='fsdp'`` spreads the parameters over the processes.
    * A progress bar shows the time left.
    """

    def setup_env(self, env_cfg: dict) -> None:
        joining = self.distributed and not is_distributed()
        if joining:
            end_with_parent()
            set_environment(self.launcher)
            join(**env_cfg.get('dist_cfg', {}))
        super().setup_env(env_cfg)
        if joining:
            watch_others()
            _check_same_start(self.cfg.get('load_from'))

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        turn_on_recomputation(model, self.cfg.pop('activation_checkpointing', None) or ())
        sharded = self.cfg.get('strategy') == 'fsdp' and self.distributed
        if not self.distributed or torch.cuda.is_available() and not sharded:
            return super().wrap_model(model_wrapper_cfg, model)
        if not torch.cuda.is_available():
            if any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
                self.logger.warning('SyncBN needs a GPU: each process normalises by its own images (BN)')
                model = revert_sync_batchnorm(model)
            self.cfg.pop('sync_bn', None)  # would turn BN into SyncBN again
        if sharded:
            return shard(model.to(get_device()))
        # mmengine names a CUDA device for DistributedDataParallel, unless a wrapper says otherwise.
        cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None,
                   find_unused_parameters=self.cfg.get('find_unused_parameters', False))
        return super().wrap_model({**cfg, **(model_wrapper_cfg or {})}, model)

    def build_optim_wrapper(self, optim_wrapper):
        if (isinstance(optim_wrapper, dict) and optim_wrapper.get('type') == 'AmpOptimWrapper'
                and not torch.cuda.is_available()):
            self.logger.warning('mixed precision needs a GPU: training in fp32')
            optim_wrapper = {key: value for key, value in optim_wrapper.items()
                             if key not in ('loss_scale', 'dtype', 'use_fsdp')}
            optim_wrapper['type'] = 'OptimWrapper'
        built = super().build_optim_wrapper(optim_wrapper)
        if self.cfg.get('strategy') == 'fsdp' and built is not optim_wrapper:
            shard_state(built.optimizer)
        return built

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        super().register_default_hooks(hooks)
        self.register_hook(ProgressHook(), priority='VERY_LOW')

    def load_checkpoint(self, filename: str, map_location: str | Callable = 'cpu', strict: bool = True,
                        **_) -> dict:
        """Loads weights of this project or official ones; ``strict`` is always on.

        Only with ``new_heads=True`` in the config may the heads' tensors have other shapes.

        Raises:
            UserError: If the file is damaged, refused since it would run code, or does not fit the model.
        """
        checkpoint = read_checkpoint(filename, map_location)
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        new_heads = self.cfg.get('new_heads', False)
        # by the model's names, for the hooks, such as EMA, that load it too
        checkpoint['state_dict'] = load_weights(model, checkpoint['state_dict'], filename, new_heads)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        self._has_loaded = True
        # mmengine's resume() runs this text as Python; it wants the number of GPUs from it, no more.
        if isinstance(checkpoint.get('meta'), dict):
            checkpoint['meta'].pop('config', None)
        return checkpoint

    def resume(self, filename: str, *args, **kwargs) -> None:
        try:
            super().resume(filename, *args, **kwargs)
        except KeyError as error:
            raise UserError(f'{filename} holds no state of a training ({error} is missing), so nothing can be '
                            'resumed from it; to start from its weights, set load_from') from error

    def save_checkpoint(self, out_dir: str, filename: str, *args, save_optimizer: bool = True, **kwargs) -> None:
        if self.cfg.get('strategy') == 'fsdp' and not is_main_process():  # rank 0 asks all for their shares
            self.model.state_dict()
            if save_optimizer:
                self.optim_wrapper.state_dict()
        self._save_checkpoint(out_dir, filename, *args, save_optimizer=save_optimizer, **kwargs)

    @master_only
    def _save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        unfinished = f'.{filename}.unfinished'
        super().save_checkpoint(out_dir, unfinished, *args, **kwargs)
        if Path(out_dir, unfinished).is_file():  # on this machine, not on a server
            os.replace(Path(out_dir, unfinished), Path(out_dir, filename))

    def train(self) -> nn.Module:
        return self._with_progress_closed(super().train)

    def val(self) -> dict:
        return self._with_progress_closed(super().val)

    def test(self) -> dict:
        return self._with_progress_closed(super().test)

    def _with_progress_closed(self, work: Callable[[], Any]) -> Any:
        """An interruption or an error must not leave a terminal without its cursor."""
        try:
            return work()
        finally:
            for hook in self.hooks:
                if isinstance(hook, ProgressHook):
                    hook.close()


def _check_same_start(load_from: str | None) -> None:
    """Where machines do not share their disk, one may find a checkpoint to resume and another none."""
    first, *others = all_gather_object(load_from)
    for rank, other in enumerate(others, 1):
        if other != first:
            raise UserError(f'rank 0 starts from {first}, rank {rank} from {other}: all machines have to see the same '
                            'work dir; share it, or copy it to each')
