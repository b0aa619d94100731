"""16-bit floats: most of the libraries' operators do not take them, and mixed precision brings them."""
import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """A 16-bit tensor in float32, in which it is then computed; any other as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
