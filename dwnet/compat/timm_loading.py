"""timm reads the checkpoints of this stack into models of this project, and into no others.

timm reads a file before its model sees anything of it, and has no place to register a reader
(``create_model(checkpoint_path=…)``, ``timm.models.load_checkpoint``), so its function is wrapped.
"""
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from timm import models  # not as timm.models, which has no such name while timm is being imported
from timm.models import _factory
from torch import nn


def serve_timm(kinds: tuple[type, ...], allowing: Callable[[], AbstractContextManager]) -> None:
    """Makes timm read files for models of these kinds in the context of ``allowing()``."""
    original = models.load_checkpoint

    @functools.wraps(original)
    def load_checkpoint(model: nn.Module, *args, **kwargs):
        with allowing() if isinstance(model, kinds) else nullcontext():
            return original(model, *args, **kwargs)

    for module in (models, _factory):  # what scripts import, and what create_model calls
        module.load_checkpoint = load_checkpoint
