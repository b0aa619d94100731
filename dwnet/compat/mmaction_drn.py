"""A stand-in for ``mmaction.models.localizers.drn``, which the wheel of mmaction2 1.2.0 lacks.

``import mmaction.models`` fails without the package (open-mmlab/mmaction2#2714). DRN finds a moment of a video by a
sentence, and has no backbone.
"""
from mmaction.registry import MODELS
from mmengine.model import BaseModule

from dwnet.errors import UserError

__path__: list[str] = []  # a package, whose module `drn` is this file, too


@MODELS.register_module(force=True)  # the file runs as the package and as its module
class DRN(BaseModule):
    """Says what is missing."""

    def __init__(self, **settings) -> None:
        raise UserError("mmaction2's wheel lacks the model DRN: install mmaction2 from its repository")
