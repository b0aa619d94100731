"""Loading checkpoints of this stack with PyTorch's ``weights_only`` kept on.

PyTorch refuses every pickled name that it does not know. mmengine's own checkpoints hold two kinds of
those (mmengine#1655), the log history and the NumPy arrays in it; the official DWNet files hold their
settings as a yacs node. They carry data and no code, so they are allowed, and nothing else is: a file
cannot run code. What mmengine downloads is held to the same.
"""
import functools
from collections import OrderedDict
from collections.abc import Callable

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer


def history_statistic(owner: type, name: str) -> Callable:
    """Takes the place of ``getattr``, by which a log history refers to its statistics.

    The real ``getattr`` would open every attribute of every object to the file.

    Raises:
        ValueError: If it is asked for anything but the four statistics.
    """
    statistics = ('min', 'max', 'mean', 'current')
    if owner is not HistoryBuffer or name not in statistics:
        raise ValueError(f'the file refers to {owner!r}.{name}, which no checkpoint of ours does')
    return HistoryBuffer.__dict__[name]


class PlainDtype:
    """Takes the place of ``numpy.dtype``, whose constructor and state would take anything."""

    def __init__(self, code: str, *_) -> None:
        self.code, self.order = str(code), '='

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype:
        """The type itself.

        Raises:
            ValueError: If it is not a type of numbers or text.
        """
        dtype = np.dtype(self.code)
        if dtype.kind not in 'biufcSU':
            raise ValueError(f'the file holds an array of {dtype}, which is no plain data')
        return dtype.newbyteorder(self.order if self.order in ('<', '>') else '=')


class PlainArray(np.ndarray):
    """An array from a file: numbers or text, never objects, whose pointers a file could make up."""

    def __new__(cls, *_, **__):
        raise ValueError('the file makes an array from scratch, which no checkpoint does')

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, raw = state
        super().__setstate__((version, shape, dtype.resolve(), fortran, bytes(raw)))

    def __reduce__(self) -> tuple:
        return np.asarray(self).__reduce__()  # saved again as what it is: a NumPy array


def reconstruct_array(*_) -> PlainArray:
    """Takes the place of NumPy's ``_reconstruct``: the empty array that the state is then put into."""
    return np.ndarray.__new__(PlainArray, (0, ), np.int8)


def reconstruct_scalar(dtype: PlainDtype, raw: bytes) -> np.generic:
    """Takes the place of NumPy's ``scalar``."""
    return np.frombuffer(raw, dtype.resolve(), 1)[0]


def allow_checkpoint_types() -> None:
    """Adds what the checkpoints hold beside tensors to PyTorch's list of safe names."""
    allowed = [
        HistoryBuffer,
        (history_statistic, 'builtins.getattr'),
        (OrderedDict, 'yacs.config.CfgNode'),  # a dict with attributes; its content is all that is read
        (PlainDtype, 'numpy.dtype'),
        (PlainArray, 'numpy.ndarray'),
    ]
    # NumPy 2 moved these two functions; files written under NumPy 1 call them by the old name.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(reconstruct_array, f'{module}._reconstruct'), (reconstruct_scalar, f'{module}.scalar')]
    torch.serialization.add_safe_globals(allowed)


def load_downloads_safely() -> None:
    """Makes mmengine read what it downloads with ``weights_only``.

    Its loaders of addresses, model-zoo names included, all go through this one function, which is
    PyTorch's, and PyTorch's lets a downloaded file run code unless it is told otherwise.
    """
    mmengine.runner.checkpoint.load_url = functools.partial(
        torch.hub.load_state_dict_from_url, weights_only=True)
