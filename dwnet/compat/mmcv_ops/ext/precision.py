"""Casts 16-bit floats, which mixed precision brings and most operators of PyTorch and torchvision here do not take."""
import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Casts a 16-bit tensor to float32; any other tensor is returned unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
