"""Makes timm read OpenMMLab's checkpoints into models of this project, and into no other models.

timm reads a file before the model gets it (``create_model(checkpoint_path=…)``, ``timm.models.load_checkpoint``), and
has no place to register a reader, so timm's function is wrapped.
"""
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from timm import models  # timm has no attribute `models` while timm is being imported
from timm.models import _factory
from torch import nn


def serve_timm(kinds: tuple[type, ...], allowing: Callable[[], AbstractContextManager]) -> None:
    """Makes timm read files for models of these classes within the context ``allowing()``."""
    original = models.load_checkpoint

    @functools.wraps(original)
    def load_checkpoint(model: nn.Module, *args, **kwargs):
        with allowing() if isinstance(model, kinds) else nullcontext():
            return original(model, *args, **kwargs)

    for module in (models, _factory):  # what scripts import, and what create_model calls
        module.load_checkpoint = load_checkpoint
