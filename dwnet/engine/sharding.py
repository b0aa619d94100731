"""Fully sharded data parallelism (FSDP), with the checkpoints of any other training.

PyTorch's ``fully_shard`` leaves the model what it is, so mmengine's Runner trains it like one on a single GPU;
mmengine's own wrapper stands for its predecessor, which refuses CPUs.
"""
from typing import Any

import torch
from mmengine.dist import broadcast
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from dwnet.models.dwnet import Block, LocalMlpBlock


def shard(model: nn.Module) -> nn.Module:
    """Spreads the parameters of ``model`` over all processes, in place; a block's are together when it computes.

    ``model.state_dict()`` gives whole tensors, for which all processes have to call it, and ``load_state_dict`` takes
    them.
    """
    if hasattr(model, 'init_weights'):  # later it would draw each process's share by itself
        model.init_weights()
    for tensor in model.state_dict().values():
        broadcast(tensor)
    for module in list(model.modules()):
        if isinstance(module, (Block, LocalMlpBlock)):
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
    return tree_map_only(DTensor, lambda tensor: tensor.full_tensor().cpu(), state)  # a GPU may not hold all


def _like(tensor: torch.Tensor, sharded: torch.Tensor) -> torch.Tensor:
    if not isinstance(sharded, DTensor) or tensor.shape != sharded.shape:
        return tensor
    return distribute_tensor(tensor.to(sharded.device), sharded.device_mesh, sharded.placements)


def _spread_weights(model: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_) -> None:
    for name, parameter in model.named_parameters():
        if prefix + name in state:
            state[prefix + name] = _like(state[prefix + name], parameter)


def _spread_state(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    numbers = [i for group in state['param_groups'] for i in group['params']]
    shared = {i: {key: _like(value, p) if isinstance(value, torch.Tensor) else value
                  for key, value in state['state'][i].items()}
              for i, p in zip(numbers, parameters) if i in state['state']}
    return {**state, 'state': shared}
