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


def allow_checkpoint_types() -> None:
    """Adds what the checkpoints hold beside tensors to PyTorch's list of safe names."""
    scalar_types = 'bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64'
    reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed = [
        HistoryBuffer, np.ndarray, np.dtype, (history_statistic, 'builtins.getattr'),
        (OrderedDict, 'yacs.config.CfgNode'),  # a dict with attributes; its content is all that is read
        *(type(np.dtype(name)) for name in scalar_types.split())
    ]
    # NumPy 2 moved these two functions; files written under NumPy 1 call them by the old name.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    torch.serialization.add_safe_globals(allowed)


def load_downloads_safely() -> None:
    """Makes mmengine read what it downloads with ``weights_only``.

    Its loaders of addresses, model-zoo names included, all go through this one function, which is
    PyTorch's, and PyTorch's lets a downloaded file run code unless it is told otherwise.
    """
    mmengine.runner.checkpoint.load_url = functools.partial(
        torch.hub.load_state_dict_from_url, weights_only=True)
