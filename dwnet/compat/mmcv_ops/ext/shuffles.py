"""Operators that only move values: ORConv's active rotating filters and TIN's shift of frames.

As in mmcv's ``active_rotated_filter.cpp`` and ``tin_shift_cuda_kernel.cuh``.
"""
import torch
from torch import Tensor

from .precision import wide


def active_rotated_filter_forward(input: Tensor, indices: Tensor, output: Tensor) -> None:
    """Writes R rotated copies of the filters into ``output``, (O * R, I * D, kh, kw) (arXiv:1701.01833).

    ``input`` is (O, I, D, kh, kw), filters of D orientations. ``indices``, (D, kh, kw, R), has the place, from 1, of
    each weight in each copy.
    """
    places, filters = _places(indices), input.flatten(2)[:, None]  # (R, 1, entries), (O, 1, I, entries)
    copies = output.view(len(input), len(places), *filters.shape[2:])
    copies.scatter_(3, places.expand_as(copies), filters.expand_as(copies))


def active_rotated_filter_backward(grad_out: Tensor, indices: Tensor, grad_in: Tensor) -> None:
    """Writes the gradient of :func:`active_rotated_filter_forward` into ``grad_in``, (O, I, D, kh, kw)."""
    places = _places(indices)
    copies = wide(grad_out).reshape(len(grad_in), len(places), grad_in.shape[1], -1)
    grad_in.copy_(copies.gather(3, places.expand_as(copies)).sum(1).view_as(grad_in))


def _places(indices: Tensor) -> Tensor:
    """Place of each entry of a filter, from 0, in each rotated copy: (R, 1, entries)."""
    return (indices.flatten(0, 2).T.long() - 1)[:, None]


def tin_shift_forward(input: Tensor, shift: Tensor, output: Tensor) -> None:
    """Writes ``input``, (B, T, C, S), with each group of channels moved along T, into ``output`` (arXiv:2001.06499).

    ``shift``, (B, groups), has the number of frames. Frames that move out are lost; places that become free keep what
    ``output`` holds.
    """
    _move(input, shift, output)


def tin_shift_backward(grad_output: Tensor, shift: Tensor, grad_input: Tensor) -> None:
    """Writes what mmcv returns as the gradient into ``grad_input``: ``grad_output``, moved by the same shifts.

    The exact gradient would be moved back. mmcv's own test expects this one, and networks are trained with it.
    """
    _move(grad_output, shift, grad_input)


def _move(frames: Tensor, shift: Tensor, moved: Tensor) -> None:
    time = torch.arange(frames.shape[1], device=frames.device)[:, None]
    per_channel = shift.long().repeat_interleave(frames.shape[2] // shift.shape[1], 1)[:, None]  # (B, 1, C)
    source = time - per_channel  # (B, T, C)
    inside = (source >= 0) & (source < frames.shape[1])
    source = source.clamp(0, frames.shape[1] - 1)[..., None].expand_as(frames)
    moved.copy_(torch.where(inside[..., None], frames.gather(1, source), moved))
