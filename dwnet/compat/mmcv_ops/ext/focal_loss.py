"""Focal losses (Lin et al., arXiv:1708.02002), as in mmcv's ``csrc/common/cuda/*_focal_loss_cuda_kernel.cuh``.

``weight`` is (classes,), or empty for none, and is indexed by the target. For a target that is no class (mmdet's
background) the compiled operators read out of bounds; here the weight of such a target is 1.
"""
import torch
from torch import Tensor
from torch.nn import functional

from .precision import wide

TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Writes the loss of the logits ``input``, (N, classes), into ``output``, (N, classes); ``target`` is (N,)."""
    p, is_target = _probabilities(input, target)
    positive = alpha * (1 - p)**gamma * p.clamp(min=TINY).log()
    negative = (1 - alpha) * p**gamma * (1 - p).clamp(min=TINY).log()
    output.copy_(-torch.where(is_target, positive, negative) * _of_target(weight, target, input)[:, None])


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """Writes the gradient of :func:`sigmoid_focal_loss_forward` into ``grad_input``, (N, classes)."""
    p, is_target = _probabilities(input, target)
    positive = alpha * (1 - p)**gamma * (1 - p - gamma * p * p.clamp(min=TINY).log())
    negative = (1 - alpha) * p**gamma * (gamma * (1 - p) * (1 - p).clamp(min=TINY).log() - p)
    grad_input.copy_(-torch.where(is_target, positive, negative) * _of_target(weight, target, input)[:, None])


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Writes the loss of probabilities ``input``, (N, classes), into ``output``, (N,); 0 if the target is no class."""
    p, is_class = _probability_of_target(input, target)
    loss = -alpha * (1 - p)**gamma * p.clamp(min=TINY).log()
    output.copy_(torch.where(is_class, loss, 0) * _of_target(weight, target, input))


def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    """Writes the gradient of :func:`softmax_focal_loss_forward` with regard to the logits into ``grad_input``."""
    p, is_class = _probability_of_target(input, target)
    slope = alpha * (gamma * (1 - p)**(gamma - 1) * p * p.clamp(min=TINY).log() - (1 - p)**gamma)
    slope = torch.where(is_class, slope, 0) * _of_target(weight, target, input)
    grad_input.copy_(slope[:, None] * (_is_target(input, target).to(slope) - wide(input)))


def _probabilities(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return wide(logits).sigmoid(), _is_target(logits, target)


def _is_target(scores: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(scores.shape[1], device=scores.device)


def _probability_of_target(probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    classes = probabilities.shape[1]
    is_class = (target >= 0) & (target < classes)
    return wide(probabilities).gather(1, target.clamp(0, classes - 1)[:, None])[:, 0], is_class


def _of_target(weight: Tensor, target: Tensor, scores: Tensor) -> Tensor:
    """(N,) or (1,): the weight of each target."""
    if not len(weight):
        return wide(scores).new_ones(1)
    classes = len(weight)
    return functional.pad(wide(weight), (0, 1), value=1)[target.where((target >= 0) & (target < classes), classes)]
