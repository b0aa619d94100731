"""Hooks behind the options for speed: deployment, bfloat16, and compilation of the backbone."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn

from dwnet.models.deploy import switch_to_deploy


@HOOKS.register_module()
class DeployHook(Hook):
    """Folds the backbone's BatchNorms after the weights are loaded and before the first image is tested."""

    def before_test(self, runner: Runner) -> None:
        averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        for model in (runner.model, *averages):  # EMAHook swaps the tensors of the two
            switch_to_deploy(model)
        runner.logger.info('the BatchNorms of the backbone are folded')


def _backbones(model: nn.Module) -> list[nn.Module]:
    found = (getattr(module, 'backbone', None) for module in model.modules())
    return [backbone for backbone in found if isinstance(backbone, nn.Module)]


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the backbone alone: the other parts of a detector have no static graph (mmdet#11050)."""

    def before_run(self, runner: Runner) -> None:
        for backbone in _backbones(runner.model):
            backbone.compile()


@HOOKS.register_module()
class BFloat16Hook(Hook):
    """Runs the backbone in bfloat16. Heads stay in float32, so that boxes and scores are not rounded."""

    def before_test(self, runner: Runner) -> None:
        for backbone in _backbones(runner.model):
            backbone.forward = partial(_in_bfloat16, backbone.forward)  # no closure: copies of the model work


def _in_bfloat16(forward: Callable, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
    with torch.autocast(x.device.type, torch.bfloat16):
        maps = forward(x)
    return maps.float() if isinstance(maps, torch.Tensor) else tuple(y.float() for y in maps)


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Trains with bfloat16 autocast, on GPUs and CPUs.

    Weights and updates stay in float32. bfloat16 has the range of float32, so no loss scale is needed.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
