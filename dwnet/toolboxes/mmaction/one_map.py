"""Gives mmaction's heads the map of DWNet, from the import of this module on; imports mmaction.

``Recognizer2D`` takes the only map out of the tuple for backbones of mmpretrain, which it knows by their scope (see
open-mmlab/mmaction2#679). DWNet returns a tuple like theirs, and is of another scope.
"""
import functools
from typing import Any

from mmaction.models.recognizers.recognizer2d import Recognizer2D

from dwnet.models import DWNet

_extract_feat = Recognizer2D.extract_feat


@functools.wraps(_extract_feat)
def extract_feat(self: Recognizer2D, *args, **kwargs) -> Any:
    if isinstance(self.backbone, DWNet) and len(self.backbone.out_indices) == 1:
        self.backbone_from = 'mmpretrain'
    return _extract_feat(self, *args, **kwargs)


Recognizer2D.extract_feat = extract_feat
