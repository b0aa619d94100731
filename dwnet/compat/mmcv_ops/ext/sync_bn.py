"""The parts of mmcv's batch normalisation over processes, ``MMSyncBN``, as in ``sync_bn_cuda_kernel.cuh``.

``mmcv.ops.sync_bn`` sums the statistics over the processes between the calls. ``input`` and ``output`` are (N, C, S);
the statistics are (C,) in float32.
"""
from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Writes the means of this process's ``input`` into ``mean``."""
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Writes the mean squared distance from ``mean``, the mean over all processes, into ``var``."""
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


def sync_bn_forward_output(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor,
                           running_mean: Tensor, running_var: Tensor, norm: Tensor, std: Tensor, output: Tensor,
                           eps: float, momentum: float, group_size: int) -> None:
    """Writes ``std``, ``norm`` (the normalised input) and ``output``, and updates the running statistics."""
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * (var * count / (count - 1) if count > 1 else var) + (1 - momentum) * running_var)


def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Writes this process's gradients of weight and bias."""
    grad_weight.copy_((grad_output.float() * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


def sync_bn_backward_data(grad_output: Tensor, weight: Tensor, grad_weight: Tensor, grad_bias: Tensor, norm: Tensor,
                          std: Tensor, grad_input: Tensor) -> None:
    """Writes the gradient of the input, given the gradients of weight and bias over all processes."""
    common = (grad_weight[:, None] * norm + grad_bias[:, None]) / (norm.shape[0] * norm.shape[2])
    grad_input.copy_(weight[:, None] * (grad_output.float() - common) / std[:, None])
