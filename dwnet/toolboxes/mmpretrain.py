"""What mmpretrain answers: image classification."""
import logging
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from dwnet.data.parts import OwnData
from dwnet.registry import type_name

from .base import Toolbox, as_list
from .graphs import Classifier


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
        model = cfg.model.get('module', cfg.model)  # inside test-time augmentation
        number = (model.get('head') or {}).get('num_classes')
        return _with_possible_topk(evaluator, number) if isinstance(number, int) else evaluator

    def save_pictures(self, cfg: Config, folder: str) -> None:
        cfg.default_hooks.visualization.update(enable=True, out_dir=folder, interval=1)

    def graph(self, model: nn.Module) -> nn.Module:
        return Classifier(model) if getattr(model, 'with_head', False) else super().graph(model)

    def inferencer(self, model: nn.Module) -> Any:
        from mmpretrain import ImageClassificationInferencer
        return ImageClassificationInferencer(model)


def _with_possible_topk(evaluator: Any, number: int) -> Any:
    """A copy of an evaluator's config without the top-5 and the like of a model with fewer classes.

    mmpretrain would end with an error after the first validation.
    """
    if isinstance(evaluator, (list, tuple)):
        return [_with_possible_topk(metric, number) for metric in evaluator]
    if not isinstance(evaluator, dict):
        return evaluator
    if 'metrics' in evaluator:  # the config of an Evaluator
        return {**evaluator, 'metrics': _with_possible_topk(evaluator['metrics'], number)}
    topk = evaluator.get('topk')
    if topk is None or max(as_list(topk)) <= number:
        return evaluator
    possible = tuple(k for k in topk if k <= number) or (1, ) if isinstance(topk, (list, tuple)) else 1
    print_log(f'{type_name(evaluator)}: a model of {number} classes has no top-{max(as_list(topk))}, so topk is '
              f'{possible}', logger='current', level=logging.WARNING)
    return {**evaluator, 'topk': possible}
