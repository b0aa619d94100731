"""Metrics of this package: mmengine imports this module when a config names one as ``dwnet.…``."""
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as ALL_METRICS

from dwnet.registry import METRICS


@METRICS.register_module()
class OfRoot(BaseMetric):
    """A metric of those images alone that lie below one of several data roots.

    Args:
        metric: The config of a metric that keeps one result an image, as those of mmpretrain, mmdet and mmseg do.
        root: The beginning of the paths of the images.
        name: The first word of the scores' names.
    """

    def __init__(self, metric: dict, root: str, name: str) -> None:
        super().__init__(prefix=name)
        self.metric, self.root = ALL_METRICS.build(metric), root

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = self.metric.dataset_meta = meta

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the result of each image, and None for an image of another root.

        All processes have as many results as images then, and mmengine drops those of padded batches as usual.
        """
        for sample in data_samples:
            if sample['img_path'].startswith(self.root):
                self.metric.process(data_batch, [sample])
                self.results.append(self.metric.results.pop())
            else:
                self.results.append(None)

    def compute_metrics(self, results: list) -> dict[str, float]:
        own = [result for result in results if result is not None]
        scores = self.metric.compute_metrics(own) if own else {}
        return {f'{self.metric.prefix}/{name}' if self.metric.prefix else name: score for name, score in scores.items()}
