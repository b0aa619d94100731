"""A top-5 accuracy of a model with two classes is left out, and the log says so."""
import pytest
from mmengine.config import Config, ConfigDict

from dwnet.toolboxes import TOOLBOXES

MODEL = dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=2))


@pytest.mark.parametrize('before, after', [
    (dict(type='Accuracy', topk=(1, 5)), dict(type='Accuracy', topk=(1, ))),
    (dict(type='Accuracy', topk=[1, 2]), dict(type='Accuracy', topk=[1, 2])),
    (dict(type='Accuracy', topk=5), dict(type='Accuracy', topk=1)),
    (dict(type='Accuracy', topk=(5, 10)), dict(type='Accuracy', topk=(1, ))),
    (dict(type='Accuracy'), dict(type='Accuracy')),
    ([dict(type='SingleLabelMetric'), dict(type='Accuracy', topk=(1, 2, 3))],
     [dict(type='SingleLabelMetric'), dict(type='Accuracy', topk=(1, 2))]),
    (dict(type='Evaluator', metrics=[dict(type='Accuracy', topk=(1, 5))]),
     dict(type='Evaluator', metrics=[dict(type='Accuracy', topk=(1, ))]))])
@pytest.mark.parametrize('model', [MODEL, dict(type='AverageClsScoreTTA', module=MODEL)], ids=['plain', 'tta'])
def test_only_what_can_be_scored_is_scored(before, after, model, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr('dwnet.toolboxes.mmpretrain.print_log', lambda line, **_: lines.append(line))
    cfg = Config(dict(model=model, val_evaluator=before))
    prepared = TOOLBOXES['mmpretrain'].prepare_evaluator(cfg.val_evaluator, cfg)
    assert prepared == after and len(lines) == (before != after)
    assert Config(dict(val_evaluator=before)).val_evaluator == cfg.val_evaluator, 'the config stays'
    assert all('Accuracy: a model of 2 classes has no top-' in line for line in lines)


@pytest.mark.parametrize('head', [None, dict(type='ArcFaceClsHead', num_classes=1000), dict(type='MultiTaskHead')])
def test_other_models_keep_their_metrics(head):
    evaluator = ConfigDict(type='Accuracy', topk=(1, 5))
    assert TOOLBOXES['mmpretrain'].prepare_evaluator(evaluator, Config(dict(model=dict(head=head)))) == evaluator
