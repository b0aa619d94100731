"""Where gradients and moments lie in memory, and fully sharded data parallelism (FSDP).

PyTorch's ``fully_shard`` leaves the model what it is, so mmengine's Runner trains it like one on a single GPU;
mmengine's own wrapper stands for its predecessor, which refuses CPUs.
"""
from functools import partial
from typing import Any

import torch
from mmengine.dist import broadcast, is_main_process
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from dwnet.models.dwnet import Block, SwinBlock
from dwnet.weights.stem import rgb_weights_fit


def lay_gradients_like_weights(model: nn.Module) -> None:
    """Gives each gradient the strides of its parameter if they differ only in dimensions of size 1.

    A dimension of size 1, as in 1×1 and depth-wise kernels, can have any stride, and the backward pass chooses another
    stride than the parameter has. DistributedDataParallel then warns of another layout and copies value by value
    (pytorch/pytorch#47163); fused optimisers refuse such gradients on GPUs (pytorch/pytorch#106951).
    """
    for parameter in model.parameters():
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_hook(partial(_laid_out, parameter.stride()))


def _laid_out(stride: tuple[int, ...], gradient: Tensor) -> Tensor:
    """A view of ``gradient`` with ``stride`` if the layout is the same; else AccumulateGrad copies to the layout."""
    same = all(size == 1 or own == other for size, own, other in zip(gradient.shape, gradient.stride(), stride))
    return gradient.as_strided(gradient.shape, stride) if same else gradient


def keep_form(optimizer: torch.optim.Optimizer, state: dict) -> dict | None:
    """Takes ``fused`` and ``foreach`` from the config, not from the checkpoint that is loaded.

    A checkpoint of an unfused run holds ``fused=None``. Loading ``fused=None`` would make the steps unfused; the loss
    scale of AmpOptimWrapper, which still expects a fused optimiser, would then fail in the first step.
    """
    groups, loaded = optimizer.param_groups, state['param_groups']
    if len(groups) != len(loaded):  # load_state_dict raises the error
        return None
    forms = [{key: group[key] for key in ('fused', 'foreach') if key in group} for group in groups]
    return {**state, 'param_groups': [{**group, **form} for group, form in zip(loaded, forms)]}


def lay_state_like_weights(optimizer: torch.optim.Optimizer) -> None:
    """Gives the loaded state of an optimiser the strides of its parameters.

    A training may resume in another memory format, and a fused optimiser reads parameters and state in memory order.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def shard(model: nn.Module) -> nn.Module:
    """Spreads the parameters of ``model`` over all processes, in place; a block's are together when it computes.

    ``model.state_dict()`` gathers whole tensors on rank 0; the other ranks have to call it too, and keep their shares.
    ``load_state_dict`` takes whole tensors on every rank.
    """
    if hasattr(model, 'init_weights'):  # later it would draw each process's share by itself
        with rgb_weights_fit(model):
            model.init_weights()
    for tensor in model.state_dict().values():
        broadcast(tensor)
    for module in list(model.modules()):
        if isinstance(module, (Block, SwinBlock)):
            fully_shard(module)
    fully_shard(model)
    model.register_state_dict_post_hook(lambda module, state, prefix, _: state.update(_whole(dict(state))))
    model.register_load_state_dict_pre_hook(_spread_weights)
    return model


def shard_state(optimizer: torch.optim.Optimizer) -> None:
    """The same for the state of the optimizer."""
    optimizer.register_state_dict_post_hook(lambda _, state: _whole(state))
    optimizer.register_load_state_dict_pre_hook(_spread_state)


def _whole(state: Any) -> Any:
    """Whole tensors on rank 0, and the shares elsewhere: one whole copy, in the memory of the CPU, is enough.

    ``torch.distributed.checkpoint.state_dict`` names optimizer state by parameter, and cannot load it where a parameter
    has had no gradient yet; our files number it like every optimizer of PyTorch.
    """
    return tree_map_only(DTensor, _gather, state)


def _gather(share: DTensor) -> Tensor:
    whole = share.full_tensor()
    return whole.cpu() if is_main_process() else share


def _like(tensor: Tensor, sharded: Tensor) -> Tensor:
    if not isinstance(sharded, DTensor) or tensor.shape != sharded.shape:
        return tensor
    return distribute_tensor(tensor.to(sharded.device), sharded.device_mesh, sharded.placements)


def _spread_weights(model: nn.Module, state: dict[str, Tensor], prefix: str, *_) -> None:
    for name, parameter in model.named_parameters():
        if prefix + name in state:
            state[prefix + name] = _like(state[prefix + name], parameter)


def _spread_state(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    numbers = [i for group in state['param_groups'] for i in group['params']]
    shared = {i: {key: _like(value, p) if isinstance(value, Tensor) else value
                  for key, value in state['state'][i].items()}
              for i, p in zip(numbers, parameters) if i in state['state']}
    return {**state, 'state': shared}
