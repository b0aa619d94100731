"""A classifier whose network is an exported file; imports mmpretrain."""
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..base import Network


class ExportedClassifier(ImageClassifier):
    """Predicts by the config's head, which turns the logits of the file into scores and labels.

    The arguments are those of :meth:`dwnet.toolboxes.base.Toolbox.exported_model`.
    """

    def __init__(self, network: Network, model: dict, data_preprocessor: dict) -> None:
        super().__init__(backbone=nn.Identity(), head=model['head'], data_preprocessor=data_preprocessor)
        self.network = network

    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None) -> list[DataSample]:
        return self.head._get_predictions(self.network(inputs)['logits'], data_samples)
