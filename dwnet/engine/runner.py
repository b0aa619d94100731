"""mmengine's Runner, for all three tasks, with what it lacks on today's PyTorch."""
import copy
import platform
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    broadcast_object_list,
    is_distributed,
    is_main_process,
    master_only,
)
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseTTAModel, is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS, LOOPS, MODEL_WRAPPERS, OPTIM_WRAPPERS, OPTIMIZERS, RUNNERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop, ValLoop
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner.base_loop import BaseLoop
from mmengine.visualization import Visualizer
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from dwnet.errors import UserError
from dwnet.models.layers import turn_on_recomputation
from dwnet.registry import class_of
from dwnet.toolboxes import toolbox_of
from dwnet.toolboxes.checked import with_checks
from dwnet.weights.loading import load_weights, read_checkpoint
from dwnet.weights.stem import rgb_weights_fit

from .checkpoints import check_training_state, gathered_gradients, newest_whole_checkpoint, replace_durably
from .distributed.peer_liveness import watch_others
from .distributed.process_group import end_with_parent, join, set_environment
from .distributed.sharding import keep_form, lay_gradients_like_weights, lay_state_like_weights, shard, shard_state
from .fonts import with_drawable_names
from .hooks.non_finite import GuardHook
from .hooks.preemption import OutlastSigterm, PreemptionHook
from .hooks.progress import ProgressHook
from .loops import EpochLoop, IterLoop
from .scoring import TestingLoop, ValidationLoop

# Default hooks beside mmengine's; a config changes a hook by its key, or removes it: default_hooks.guard = None
_HOOKS = dict(
    checkpoint=dict(type='SafeCheckpointHook', interval=1),
    seed=dict(type='SeedHook'),
    gradients=dict(type='GatheredGradientsHook'),
    guard=dict(type='GuardHook'),
    preemption=dict(type='PreemptionHook'),
    progress=dict(type='ProgressHook'),
    waiting=dict(type='WaitingHook'))
_REMOVED_BY_MMENGINE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


@RUNNERS.register_module(name='DWNetRunner')
class Runner(MMEngineRunner):
    """Trains, validates and tests a config of mmpretrain, mmdet or mmseg, as mmengine's Runner does.

    What differs:

    * Several processes work without a GPU, over gloo. SyncBN becomes BN and mixed precision fp32, with a warning.
    * A resumed training ends with the same weights as an uninterrupted one, even if the interruption was in the middle
      of an epoch: :mod:`dwnet.engine.reproducible`.
    * Checkpoints cannot be torn, and a damaged checkpoint is passed over: :mod:`dwnet.engine.checkpoints`. SIGTERM
      saves a checkpoint: :mod:`dwnet.engine.hooks.preemption`.
    * Steps and samples that cannot be used are skipped and named: :mod:`dwnet.engine.hooks.non_finite`.
    * Damaged images and broken COCO annotations are named: :mod:`dwnet.data`.
    * A checkpoint that does not fit the model is an error.
    * Resuming does not execute the config text in a checkpoint.
    * ``activation_checkpointing`` is non-reentrant. mmengine's reentrant form computes no gradient for modules whose
      input needs none (open-mmlab/mmengine#1425).
    * ``strategy='fsdp'`` shards the parameters.
    * Segmentors are validated without logits of all pixels and classes: :mod:`dwnet.toolboxes.mmseg.lean`. For a
      metric that needs the logits, ``keep_seg_logits=True`` in the config keeps them.
    * A second run in the same process logs to its own folder.
    * A progress bar shows the time left, and the log says when a training waits for data.
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
            _check_same_start(self.cfg)

    def _log_env(self, env_cfg: dict) -> None:
        # mmengine runs the compiler that built Python in a shell, to log its version. If the compiler is missing, the
        # shell prints an error; `false` fails silently, and mmengine handles that.
        compiler = sysconfig.get_config_var('CC')
        missing = compiler and shutil.which(compiler.split()[0]) is None
        with mock.patch.dict(sysconfig.get_config_vars(), {'CC': 'false'} if missing else {}):
            super()._log_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        # activation_checkpointing names parts of the model, not of a TTA wrapper
        named = model.module if isinstance(model, BaseTTAModel) else model
        turn_on_recomputation(named, self.cfg.get('activation_checkpointing') or ())
        if self.cfg.get('channels_last'):  # before DDP's gradient buckets copy the layout
            model.to(memory_format=torch.channels_last)
        sharded = self.cfg.get('strategy') == 'fsdp'
        if is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        model = model.to(get_device())
        if not (sharded and self.distributed):
            lay_gradients_like_weights(model)
        if not self.distributed or torch.cuda.is_available() and not sharded:
            return super().wrap_model(model_wrapper_cfg, model)
        if not torch.cuda.is_available() and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules()):
            self.logger.warning('SyncBN needs a GPU: each process normalises by its own images (BN)')
            model = revert_sync_batchnorm(model)
        if sharded:
            return shard(model)
        # mmengine's wrap_model names a CUDA device, and converts BN to SyncBN if the config has sync_bn
        cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, module=model,
                   find_unused_parameters=self.cfg.get('find_unused_parameters', False))
        return MODEL_WRAPPERS.build({**cfg, **(model_wrapper_cfg or {})})

    def _init_model_weights(self) -> None:
        if not isinstance(self.model, FSDPModule):  # shard() has initialised and broadcast them
            with rgb_weights_fit(self.model):
                super()._init_model_weights()

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        # mmdet's and mmseg's configs name their visualizer, and mmengine has one visualizer a name: a second run in the
        # process would log to the first run's folder. A copy, since mmengine writes the folder into the config.
        if isinstance(visualizer, dict):
            visualizer = copy.deepcopy(visualizer) | dict(name=self.experiment_name)
        return super().build_visualizer(visualizer)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        built = super().build_model(model)
        toolbox_of(self.cfg).prepare_model(built, self.cfg)
        return built

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        return super().build_evaluator(toolbox_of(self.cfg).prepare_evaluator(evaluator, self.cfg))

    def build_optim_wrapper(self, optim_wrapper):
        if (isinstance(optim_wrapper, dict) and class_of(optim_wrapper, OPTIM_WRAPPERS) is AmpOptimWrapper
                and not torch.cuda.is_available()):
            self.logger.warning('mixed precision needs a GPU: training in fp32')
            optim_wrapper = {key: value for key, value in optim_wrapper.items()
                             if key not in ('loss_scale', 'dtype', 'use_fsdp')}
            optim_wrapper['type'] = 'OptimWrapper'
        if isinstance(optim_wrapper, dict) and 'optimizer' in optim_wrapper:
            optim_wrapper = {**optim_wrapper, 'optimizer': _fused(optim_wrapper['optimizer'])}
        built = super().build_optim_wrapper(optim_wrapper)
        if built is optim_wrapper:
            return built
        for part in built.values() if isinstance(built, OptimWrapperDict) else [built]:
            part.optimizer.register_load_state_dict_pre_hook(keep_form)
            part.optimizer.register_load_state_dict_post_hook(lay_state_like_weights)
            if self.cfg.get('strategy') == 'fsdp':
                shard_state(part.optimizer)
        return built

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        hooks = {**_HOOKS, **(hooks or {})}
        checkpoint = hooks.get('checkpoint')
        if isinstance(checkpoint, dict) and class_of(checkpoint, HOOKS) is CheckpointHook:
            hooks['checkpoint'] = {**checkpoint, 'type': 'SafeCheckpointHook'}
        # mmengine removes its own hooks alone
        super().register_default_hooks({
            name: hook for name, hook in hooks.items() if hook is not None or name in _REMOVED_BY_MMENGINE})

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args, **kwargs) -> DataLoader:
        if isinstance(dataloader, dict) and isinstance(dataloader.get('dataset'), dict):
            dataloader = {**dataloader, 'dataset': with_checks(dataloader['dataset'])}
        loader = MMEngineRunner.build_dataloader(dataloader, *args, **kwargs)
        if loader.num_workers:
            loader.worker_init_fn = OutlastSigterm(loader.worker_init_fn)
        return loader

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        if self._resume and isinstance(loop, dict):
            self._load_from = self._checkpoint_to_resume()  # now, since the data loaders need its seed
        if isinstance(loop, dict) and 'type' not in loop:
            loop = dict(loop)
            loop['type'] = EpochLoop if loop.pop('by_epoch') else IterLoop
        elif isinstance(loop, dict):
            for theirs, own in ((EpochBasedTrainLoop, EpochLoop), (IterBasedTrainLoop, IterLoop)):
                if class_of(loop, LOOPS) is theirs:
                    loop = {**loop, 'type': own}
        return super().build_train_loop(loop)

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        return super().build_val_loop(_in_place_of(ValLoop, ValidationLoop, loop))

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        built = super().build_test_loop(_in_place_of(TestLoop, TestingLoop, loop))
        if meta := self.visualizer.dataset_meta:  # of the test data
            self.visualizer.dataset_meta = with_drawable_names(meta, toolbox_of(self.cfg))
        return built

    @property
    def iter(self) -> int:
        """Steps done; 0 in a test, where mmengine would build the training data first. mmseg's pictures need it."""
        return self._train_loop.iter if isinstance(self._train_loop, BaseLoop) else 0

    def load_checkpoint(self, filename: str, map_location: str | Callable = 'cpu', strict: bool = True,
                        **_) -> dict:
        """Loads weights of this project or official ones; ``strict`` is always on.

        Only with ``new_heads=True`` in the config may the heads' tensors have other shapes.

        Raises:
            UserError: If the file is damaged, would run code, or does not fit the model.
        """
        checkpoint = read_checkpoint(filename, map_location)
        if self._resume:
            check_training_state(checkpoint, filename, self)
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        new_heads = self.cfg.get('new_heads', False)
        # with the model's names, since hooks such as EMA load the state dict, too
        checkpoint['state_dict'] = load_weights(model, checkpoint['state_dict'], filename, new_heads)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        # when a training resumes, EMA's hook has put the trained weights in the place of the averaged weights
        model.load_state_dict(checkpoint['state_dict'], strict=not new_heads)
        self._has_loaded = True
        # mmengine's resume() would run this text as Python, only to read the number of GPUs
        if isinstance(checkpoint.get('meta'), dict):
            checkpoint['meta'].pop('config', None)
        self._meta = checkpoint.get('meta')
        return checkpoint

    def resume(self, filename: str, *args, **kwargs) -> None:
        self._resume = True
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        if self.param_schedulers is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
        schedule = self.param_schedulers if isinstance(self.param_schedulers, list) else []
        ends = [scheduler.end for scheduler in schedule]
        try:
            rates = _peak_rates(self.optim_wrapper)
            super().resume(filename, *args, **{'map_location': 'cpu', **kwargs})  # the GPU may hold a shard only
            if (begun_with := _peak_rates(self.optim_wrapper)) != rates:
                self.logger.warning(f'the learning rate is that which the training began with, {begun_with[0]:g} at '
                                    f'its peak, not {rates[0]:g}: for another, start anew from the weights')
            if (begun := [scheduler.end for scheduler in schedule]) != ends:
                self.logger.warning(f'the learning rate follows the schedule that the training began with, which ends '
                                    f'at {begun}, not at {ends}: to stretch it, start anew from the weights')
            if isinstance(self.train_loop, (EpochLoop, IterLoop)):
                self.train_loop.go_on(self._meta)
        except UserError:
            raise
        except Exception as error:  # an altered state may raise anything
            raise UserError(f'{filename} cannot be resumed from ({type(error).__name__}: {error}); to start from its '
                            'weights, set load_from') from error

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """``--auto-scale-lr``; batches whose gradients are accumulated count as one."""
        if auto_scale_lr and (together := getattr(optim_wrapper, '_accumulative_counts', 1)) > 1:
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': auto_scale_lr['base_batch_size'] / together}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def save_checkpoint(self, out_dir: str, filename: str, *args, save_optimizer: bool = True, **kwargs) -> None:
        for gradient in gathered_gradients(self).values():  # each rank has its own; the file holds the mean
            all_reduce(gradient, 'mean')
        if self.cfg.get('strategy') == 'fsdp' and not is_main_process():  # rank 0 gathers all shards
            self.model.state_dict()
            if save_optimizer:
                self.optim_wrapper.state_dict()
        self._write_checkpoint(out_dir, filename, *args, save_optimizer=save_optimizer, **kwargs)

    @master_only
    def _write_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        # on a server a file appears only when it is complete
        unfinished = filename if '://' in out_dir else f'.{filename}.unfinished'
        try:
            super().save_checkpoint(out_dir, unfinished, *args, **kwargs)
            if unfinished != filename:
                replace_durably(Path(out_dir, unfinished), Path(out_dir, filename))
        except OSError as error:
            Path(out_dir, unfinished).unlink(missing_ok=True)
            raise UserError(f'{out_dir}/{filename} cannot be written ({error.strerror or error}); earlier checkpoints '
                            'are intact: make room, then --resume') from error

    @master_only
    def dump_config(self) -> None:
        """Writes the config into the work dir, or beside the log if the config is a file of the work dir.

        So a test does not overwrite the config of its training. ``new_heads`` is set to False, since it concerns the
        weights that this training starts from, not the weights that it writes.
        """
        name = Path(self.cfg.filename).name if self.cfg.filename else f'{self.timestamp}.py'
        own = Path(self.work_dir, name)
        taken = own.is_file() and self.cfg.filename and own.samefile(self.cfg.filename)
        self.dumped_config = Path(self.log_dir, name) if taken else own
        cfg = copy.deepcopy(self.cfg)
        if cfg.get('new_heads'):
            cfg.new_heads = False
        cfg.dump(self.dumped_config)

    def train(self) -> nn.Module:
        # wrap_model has already turned on activation checkpointing, in the non-reentrant form
        with mock.patch('mmengine.runner.runner.turn_on_activation_checkpointing'):
            return self._then_closed(super().train)

    def _checkpoint_to_resume(self) -> str | None:
        """The checkpoint that is named or that rank 0 finds, the same on all ranks; its seed is restored, too."""
        found: list = [None, None]
        if is_main_process():
            try:
                if path := self._load_from or newest_whole_checkpoint(self.work_dir):
                    meta = read_checkpoint(str(path)).get('meta')
                    found = [str(path), meta.get('seed') if isinstance(meta, dict) else None]
            except UserError as error:
                found = [error, None]
        broadcast_object_list(found)
        path, seed = found
        if isinstance(path, UserError):
            raise path
        if path is None:
            self._resume = False
        elif '://' not in path and not Path(path).is_file():
            raise UserError(f'{path}, from which the first process resumes, is not there on {platform.node()}: the '
                            'work dir has to be one folder for all machines')
        elif isinstance(seed, int) and seed != (own := self._randomness_cfg.get('seed')):
            if own is not None:
                self.logger.warning(f'the training began with randomness.seed={seed} and goes on with it, not {own}')
            self._randomness_cfg['seed'] = seed
            self.set_randomness(**self._randomness_cfg)
        return path

    def val(self) -> dict:
        return self._then_closed(super().val)

    def test(self) -> dict:
        return self._then_closed(super().test)

    def _then_closed(self, work: Callable[[], Any]) -> Any:
        """Runs ``work``, and even after an error restores the cursor and SIGTERM's handler and removes model hooks."""
        try:
            return work()
        finally:
            for hook in self.hooks:
                if isinstance(hook, (GuardHook, PreemptionHook, ProgressHook)):
                    hook.close()


def _in_place_of(theirs: type[BaseLoop], own: type[BaseLoop], loop: BaseLoop | dict) -> BaseLoop | dict:
    """A loop's config with ``own`` in the place of mmengine's loop, which is also that of a config without a type."""
    plain = isinstance(loop, dict) and class_of({'type': theirs, **loop}, LOOPS) is theirs
    return {**loop, 'type': own} if plain else loop


def _fused(optimizer: Any) -> Any:
    """The config of an optimizer, with ``fused=True`` for PyTorch's Adam and AdamW.

    The fused form makes fewer passes over the weights, and on a GPU it can skip a step by itself (see GuardHook).
    ``fused=False`` or ``foreach=True`` in the config keeps another form.
    """
    adam = isinstance(optimizer, dict) and class_of(optimizer, OPTIMIZERS) in (torch.optim.Adam, torch.optim.AdamW)
    known = get_device() in ('cpu', 'cuda')
    other = adam and any(optimizer.get(key) for key in ('foreach', 'differentiable'))  # PyTorch refuses both at once
    return {'fused': True, **optimizer} if adam and known and not other else optimizer


def _peak_rates(optim_wrapper: OptimWrapper) -> list[float]:
    """The learning rate of each parameter group before a schedule changes it; empty for several optimizers."""
    groups = optim_wrapper.param_groups
    return [group.get('initial_lr', group['lr']) for group in groups] if isinstance(groups, list) else []


def _check_same_start(cfg: Config) -> None:
    """Checks that all ranks start from the same checkpoint; machines that share no disk may find different ones."""
    first, *others = all_gather_object((bool(cfg.get('resume')), cfg.get('load_from')))
    for rank, other in enumerate(others, 1):
        if other != first:
            raise UserError(f'rank 0 finds a checkpoint to start from that rank {rank} does not find, or the reverse: '
                            'all machines have to see the same work dir; share it, or copy it to each')
