"""Which graph exports a detector."""
from mmdet.models.detectors import DetectionTransformer, MaskFormer, SingleStageDetector
from torch import nn

from dwnet.errors import UserError

from .dense_graph import DenseDetector
from .mask_graph import MaskDetector
from .query_graph import QueryDetector
from .two_stage_graph import TwoStageDetector


def graph(model: nn.Module) -> nn.Module:
    """The graph of a detector of mmdet.

    Raises:
        UserError: If no graph computes what the detector does.
    """
    if hasattr(model, 'roi_head') and model.with_rpn:
        return TwoStageDetector(model)
    for kind, its_graph in ((MaskFormer, MaskDetector), (DetectionTransformer, QueryDetector),
                            (SingleStageDetector, DenseDetector)):
        if isinstance(model, kind):
            return its_graph(model)
    raise UserError(f'{type(model).__name__} cannot be exported; its backbone alone can, by --backbone')
