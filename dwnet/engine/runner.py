"""mmengine's Runner, for all three tasks, with what it lacks on today's PyTorch."""
import os
from pathlib import Path

import torch
from mmengine.dist import is_distributed
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from dwnet.errors import UserError

from .process_group import init_cpu_process_group
from .progress import ProgressHook


@RUNNERS.register_module(name='DWNetRunner')
class Runner(MMEngineRunner):
    """Trains, validates and tests a config of mmpretrain, mmdet or mmseg, as mmengine's Runner does.

    What differs:

    * Several processes work without a GPU, over gloo; what needs a GPU is replaced there, with a warning:
      SyncBN by BN, mixed precision by fp32.
    * A checkpoint that does not fit the model is an error.
    * A checkpoint is written beside its final name and renamed when it is whole.
    * Resuming does not execute the config text that a checkpoint may carry.
    * A progress bar shows the time left.
    """

    def setup_env(self, env_cfg: dict) -> None:
        if self.distributed and not is_distributed() and not torch.cuda.is_available():
            init_cpu_process_group(self.launcher)
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if not self.distributed or torch.cuda.is_available():
            return super().wrap_model(model_wrapper_cfg, model)
        if any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
            self.logger.warning('SyncBN needs a GPU: each process normalises by its own images (BN)')
            model = revert_sync_batchnorm(model)
        self.cfg.pop('sync_bn', None)  # would turn BN into SyncBN again
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
        return super().build_optim_wrapper(optim_wrapper)

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        super().register_default_hooks(hooks)
        self.register_hook(ProgressHook(), priority='VERY_LOW')

    def load_checkpoint(self, filename: str, map_location: str = 'cpu', strict: bool = True, **kwargs) -> dict:
        try:
            checkpoint = super().load_checkpoint(filename, map_location, strict=True, **kwargs)
        except UserError:
            raise
        except Exception as error:  # whatever a damaged, hostile or foreign file leads to
            reason = ' '.join(str(error).split())[:400]
            if 'state_dict' in reason:  # mmengine's list of the keys that do not match
                raise UserError(f"{filename} does not fit the config's model: {reason}") from error
            raise UserError(f'{filename} is damaged or holds more than weights, and is not loaded: {reason}') from error
        # mmengine's resume() runs this text as Python; it wants the number of GPUs from it, no more.
        checkpoint.get('meta', {}).pop('config', None)
        return checkpoint

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        unfinished = f'.{filename}.unfinished'
        super().save_checkpoint(out_dir, unfinished, *args, **kwargs)
        # save_checkpoint runs on the first process alone (CheckpointHook sees to it)
        if Path(out_dir, unfinished).is_file():
            os.replace(Path(out_dir, unfinished), Path(out_dir, filename))
