"""Finding mistakes before work starts: paths of nested data sets."""
import re
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import pytest
from conftest import ROOT, run_command
from mmengine.config import Config
from mmengine.registry import DefaultScope

from dwnet.commands._config import load_config
from dwnet.engine.preflight import _dataset_paths, check_data
from dwnet.errors import UserError
from dwnet.toolboxes import main_score

LEAF = dict(data_root='/d', ann_file='a.json', data_prefix=dict(img='train/', seg=''))


@pytest.mark.parametrize('dataset, paths', [
    (LEAF, {'dataset.data_root': '/d', 'dataset.ann_file': '/d/a.json', 'dataset.data_prefix.img': '/d/train'}),
    (dict(data_prefix='x'), {'dataset.data_prefix': 'x'}),
    (dict(dataset=LEAF | dict(ann_file='')), {'dataset.dataset.data_root': '/d',
                                              'dataset.dataset.data_prefix.img': '/d/train'}),
    (dict(datasets=[dict(data_root='/a'), dict(data_root='/b')]), {'dataset.datasets.0.data_root': '/a',
                                                                  'dataset.datasets.1.data_root': '/b'}),
    (dict(data_root='s3://bucket', ann_file='a.json'), {}),
    (dict(type='mmpretrain.CIFAR100', data_root='data/cifar10'), {}),
    (dict(type='mypkg.CIFAR10', data_root='/a'), {'dataset.data_root': '/a'}),
    (None, {}),
])
def test_paths_of_a_data_set(dataset, paths):
    assert dict(_dataset_paths(dataset, 'mmdet')) == {key: Path(path) for key, path in paths.items()}


def test_missing_annotations_of_a_metric(tmp_path):
    cfg = Config(dict(test_dataloader=dict(dataset=dict(data_root=str(tmp_path))),
                      test_evaluator=[dict(type='A'), dict(type='CocoMetric', ann_file='/nowhere/a.json')]))
    with pytest.raises(UserError, match=r'/nowhere/a.json is missing \(test data\).*test_evaluator.ann_file=…'):
        check_data(cfg, 'test')
    cfg.test_evaluator.pop()
    check_data(cfg, 'test', 'train')


def test_make_help_names_every_target():
    """The lines at the top of the Makefile, which are no targets of files."""
    named = {line.split()[1] for line in run_command('make', 'help').stdout.splitlines() if line.startswith('make ')}
    targets = re.search(r'^\.PHONY: (.+)$', (ROOT / 'Makefile').read_text(), re.MULTILINE)[1].split()
    assert named == set(targets)


def test_a_base_of_this_package_is_in_the_scope_of_its_toolbox(tmp_path, monkeypatch):
    """Its parts are marked as parts of dwnet; the types are the toolbox's."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = 'dwnet::detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'\n"
                    "val_evaluator = _base_.test_evaluator\n")
    cfg = load_config(Namespace(config=str(mine), cfg_options=None, work_dir=None, launcher='none'))
    assert main_score(cfg) == 'coco/bbox_mAP'
