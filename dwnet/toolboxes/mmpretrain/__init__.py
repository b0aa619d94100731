"""What mmpretrain answers: image classification.

================  ========================================
``class_scores``  scores each class
``exported``      classifiers that run from exported files
================  ========================================
"""
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from dwnet.data.checks import leaves
from dwnet.errors import UserError
from dwnet.registry import is_a, type_name

from ..base import Network, Toolbox, as_list, with_metric
from ..graphs import Classifier

if TYPE_CHECKING:  # importing it loads the readers of all forms of data
    from dwnet.data.own import OwnData


class MMPretrain(Toolbox):
    """mmpretrain."""
    name = 'mmpretrain'
    distribution = 'mmpretrain'
    extra = 'cls'
    task = 'classification'
    pipeline_tag = 'image-classification'
    trial_size = 224
    scores = {'accuracy/top1': 'top-1', 'accuracy/top5': 'top-5', 'multi-label/mAP': 'mAP'}
    main_scores = {'mmpretrain.Accuracy': ('', {'top-1': 'accuracy/top1'}),
                   'mmpretrain.AveragePrecision': ('', {'mAP': 'multi-label/mAP'})}
    preprocessor_type = 'mmpretrain.ClsDataPreprocessor'  # stock configs leave the type out
    downloads = frozenset({'mmpretrain.CIFAR10', 'mmpretrain.MNIST'})
    tta_model = dict(type='mmpretrain.AverageClsScoreTTA')

    def own_dataset(self, data: 'OwnData', part: str) -> dict:
        kind = 'MultiLabelDataset' if data.several_labels else 'CustomDataset'
        return dict(type=f'mmpretrain.{kind}', data_root=str(data.root), metainfo=dict(classes=data.classes),
                    ann_file=data.parts[part]['ann_file'])

    def own_evaluator(self, cfg: Config, data: 'OwnData', part: str) -> dict | list[dict]:
        if data.several_labels:
            return [dict(type='mmpretrain.AveragePrecision'), dict(type='mmpretrain.MultiLabelMetric', thr=.5)]
        return dict(type='mmpretrain.Accuracy', topk=(1, 5) if len(data.classes) > 5 else (1, ))

    def fit_to_data(self, cfg: Config, data: 'OwnData') -> None:
        head, scope = cfg.model.get('head') or {}, cfg.get('default_scope')
        if not data.several_labels or is_a(head, 'mmpretrain.MultiLabelClsHead', MODELS, scope):
            return
        if not is_a(head, 'mmpretrain.LinearClsHead', MODELS, scope):
            raise UserError(f"several labels an image need a model with the head LinearClsHead, and this one has "
                            f"{type_name(head) or 'none'}; take another config")
        for key in head.keys() - {'num_classes', 'in_channels', 'init_cfg'}:  # losses of a single label
            del head[key]
        head.update(type='mmpretrain.MultiLabelLinearClsHead', loss=dict(type='CrossEntropyLoss', use_sigmoid=True))

    def prepare_evaluator(self, evaluator: Any, cfg: Config) -> Any:
        from .class_scores import Accuracy, AccuracyOfClasses, AveragePrecision, AveragePrecisionOfClasses
        model = cfg.model
        while 'module' in model:  # inside test-time augmentation or an exported model
            model = model['module']
        number = (model.get('head') or {}).get('num_classes')
        if isinstance(number, int):
            evaluator = _with_possible_topk(evaluator, number)
        evaluator = with_metric(evaluator, Accuracy, AccuracyOfClasses)
        return with_metric(evaluator, AveragePrecision, AveragePrecisionOfClasses)

    def count_classes(self, dataset: Any) -> dict[str, list[int]]:
        labels = [label for part in leaves(dataset) for i in range(len(part)) for label in set(part.get_cat_ids(i))]
        return dict(images=np.bincount(np.array(labels, int), minlength=len(dataset.metainfo['classes'])).tolist())

    def save_pictures(self, cfg: Config, folder: str) -> None:
        cfg.default_hooks.visualization.update(enable=True, out_dir=folder, interval=1)

    def graph(self, model: nn.Module) -> nn.Module:
        return Classifier(model) if getattr(model, 'with_head', False) else super().graph(model)

    def exported_model(self, network: Network, model: ConfigDict, data_preprocessor: dict) -> nn.Module:
        from .exported import ExportedClassifier
        return ExportedClassifier(network, model, data_preprocessor)

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
    for inner in ('metrics', 'metric'):  # of an Evaluator; of OfRoot
        if isinstance(evaluator.get(inner), (list, dict)):
            return {**evaluator, inner: _with_possible_topk(evaluator[inner], number)}
    topk = evaluator.get('topk')
    if topk is None or max(as_list(topk)) <= number:
        return evaluator
    possible = tuple(k for k in topk if k <= number) or (1, ) if isinstance(topk, (list, tuple)) else 1
    print_log(f'{type_name(evaluator)}: a model of {number} classes has no top-{max(as_list(topk))}, so topk is '
              f'{possible}', logger='current', level=logging.WARNING)
    return {**evaluator, 'topk': possible}
