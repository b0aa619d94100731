"""What mmpretrain answers: image classification. ``class_scores`` scores each class."""
from typing import Any

import numpy as np
from mmengine.config import Config
from torch import nn

from dwnet.data.checks import leaves
from dwnet.data.parts import OwnData

from ..base import Toolbox, with_metric
from ..graphs import Classifier


class MMPretrain(Toolbox):
    """mmpretrain."""
    name = 'mmpretrain'
    distribution = 'mmpretrain'
    extra = 'cls'
    task = 'classification'
    trial_size = 224
    scores = {'accuracy/top1': 'top-1', 'accuracy/top5': 'top-5'}
    main_scores = {'mmpretrain.Accuracy': ('', {'top-1': 'accuracy/top1'})}
    preprocessor_type = 'mmpretrain.ClsDataPreprocessor'  # stock configs leave the type out
    downloads = frozenset({'mmpretrain.CIFAR10', 'mmpretrain.MNIST'})
    tta_model = dict(type='mmpretrain.AverageClsScoreTTA')

    def own_dataset(self, data: OwnData, part: str) -> dict:
        return dict(type='mmpretrain.CustomDataset', data_root=str(data.root), metainfo=dict(classes=data.classes),
                    ann_file=data.parts[part]['ann_file'])

    def own_evaluator(self, cfg: Config, data: OwnData, part: str) -> dict:
        return dict(type='mmpretrain.Accuracy', topk=(1, 5) if len(data.classes) > 5 else (1, ))

    def prepare_evaluator(self, evaluator: Any, cfg: Config) -> Any:
        from .class_scores import Accuracy, AccuracyOfClasses
        return with_metric(evaluator, Accuracy, AccuracyOfClasses)

    def count_classes(self, dataset: Any) -> dict[str, list[int]]:
        labels = [label for part in leaves(dataset) for i in range(len(part)) for label in set(part.get_cat_ids(i))]
        return dict(images=np.bincount(np.array(labels, int), minlength=len(dataset.metainfo['classes'])).tolist())

    def save_pictures(self, cfg: Config, folder: str) -> None:
        cfg.default_hooks.visualization.update(enable=True, out_dir=folder, interval=1)

    def graph(self, model: nn.Module) -> nn.Module:
        return Classifier(model) if getattr(model, 'with_head', False) else super().graph(model)

    def inferencer(self, model: nn.Module) -> Any:
        from mmpretrain import ImageClassificationInferencer
        return ImageClassificationInferencer(model)
