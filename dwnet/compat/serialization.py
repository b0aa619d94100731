"""Loading checkpoints of this stack with PyTorch's ``weights_only`` kept on.

PyTorch refuses every pickled type that it does not know. mmengine's own checkpoints hold two kinds of
those (mmengine#1655): the log history, and the NumPy arrays in it. They carry data and no code, so they
are allowed by name, and nothing else is: a file cannot run code.
"""
import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer


def allow_checkpoint_types() -> None:
    """Adds what mmengine stores in a checkpoint to PyTorch's list of safe types."""
    scalar_types = 'bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64'
    reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed = [
        HistoryBuffer, np.ndarray, np.dtype,
        *(type(np.dtype(name)) for name in scalar_types.split())
    ]
    # NumPy 2 moved these two functions; files written under NumPy 1 call them by the old name.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    torch.serialization.add_safe_globals(allowed)
