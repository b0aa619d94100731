"""--balance: rare classes are drawn more often, in every form of training data, and a resumed training is the same."""
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_config
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from test_fine_tune import NANO, arguments, coco, folders, masks_root, picture
from test_resume import Stop, runner_for, same, state_of

from dwnet.commands.options.balance import balance, enable_balance
from dwnet.commands.options.fine_tuning import enable_own_data
from dwnet.errors import UserError
from dwnet.toolboxes import enter_scope
from dwnet.toolboxes.checked import with_checks


@DATASETS.register_module()
class Labelled(BaseDataset):
    """``numbers[i]`` samples of class i, -1 for none, each with random numbers of its own."""

    def __init__(self, numbers: dict, **kwargs) -> None:
        self.numbers = numbers
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        return [dict(label=int(label)) for label, number in self.numbers.items() for _ in range(number)]

    def get_cat_ids(self, index: int) -> list[int]:
        label = self.get_data_info(index)['label']
        return [label] * 2 if label >= 0 else []

    def __getitem__(self, index: int) -> dict:
        return dict(x=torch.tensor([index / 10, random.random(), np.random.rand()]) + torch.rand(3))


def labelled(**numbers: int) -> Config:
    numbers = {name.removeprefix('of_').replace('none', '-1'): number for name, number in numbers.items()}
    return Config(dict(train_dataloader=dict(dataset=dict(type='Labelled', numbers=numbers)), launcher='none'))


def drawn(cfg: Config) -> list[list[int]]:
    data = DATASETS.build(with_checks(cfg.train_dataloader.dataset))
    return [sorted(set(data.get_cat_ids(i))) for i in range(len(data))]


def own_data(task: str, root: Path) -> Config:
    cfg = read_config(NANO[task])
    cfg.work_dir = str(root.parent / 'work')
    enable_own_data(cfg, arguments(root, balance=True))
    return cfg


@pytest.mark.parametrize('numbers, times', [
    (dict(of_0=40, of_1=12, of_2=2), {0: 1, 1: 2, 2: 4}),  # the root of 20 / 12 and of 20 / 2, rounded up
    (dict(of_0=40, of_1=30, of_2=21), {0: 1, 1: 1, 2: 1}),  # none is rare
    (dict(of_none=50, of_0=8, of_1=1), {-1: 1, 0: 1, 1: 2}),  # images without objects stay
    (dict(of_none=5), {-1: 1})])
def test_rare_classes_are_drawn_more_often(numbers, times, capsys):
    cfg = labelled(**numbers)
    before = [label for label, number in cfg.train_dataloader.dataset.numbers.items() for _ in range(number)]
    assert balance(cfg) == len(drawn(cfg)) == sum(times[int(label)] for label in before)
    assert drawn(cfg) == [[int(label)] * (label != '-1') for label in before for _ in range(times[int(label)])]
    assert capsys.readouterr().out == f'--balance: an epoch draws {len(drawn(cfg))} times from {len(before)} images\n'


def test_wrappers_around_the_data_stay():
    cfg = labelled(of_0=8, of_1=1)
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=cfg.train_dataloader.dataset)
    assert balance(cfg) == 30 and cfg.train_dataloader.dataset.type == 'RepeatDataset'
    with pytest.raises(UserError, match='balances its training data already'):
        balance(cfg)


def test_a_resumed_training_ends_bit_identical(tmp_path):
    def train(folder: str, **options):
        cfg = labelled(of_0=13, of_1=4, of_2=1)
        assert balance(cfg) == 13 + 2 * 4 + 3
        runner = runner_for(tmp_path / folder, data=cfg.train_dataloader.dataset, **options)
        runner.train()
        return runner

    whole = train('whole')
    with pytest.raises(InterruptedError):
        train('cut', hooks=[Stop(8)])
    torch.manual_seed(99)
    resumed = train('cut', resume=True)
    assert resumed.iter == whole.iter == 3 * 6 and same(state_of(whole), state_of(resumed))


def test_own_data_of_a_classifier(tmp_path):
    root = folders(tmp_path / 'my', train__cat=20, train__dog=8, train__owl=2, val__cat=1, val__dog=1, val__owl=1)
    cfg = own_data('classification', root)
    assert drawn(cfg) == [[0]] * 20 + [[1]] * 8 * 2 + [[2]] * 2 * 3
    steps = len(drawn(cfg)) // cfg.train_dataloader.batch_size
    assert cfg.default_hooks.logger.interval == min(10, steps)
    enable_balance(cfg, 'my')  # the row of the table changes nothing a second time
    assert cfg.train_dataloader.dataset.dataset.type == 'mmpretrain.CustomDataset'


def test_data_of_a_detector(tmp_path):
    """An image is drawn as often as its rarest object asks for."""
    files = [f'{i}.jpg' for i in range(12)]
    content = coco(tmp_path / 'all.json', files)
    for annotation in content['annotations']:
        annotation['category_id'] = 11 if annotation['id'] == 1 else 10
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] != 11]
    (tmp_path / 'all.json').write_text(json.dumps(content))
    for name in files:
        picture(tmp_path / name)
    cfg = read_config(NANO['detection'])
    cfg.train_dataloader.dataset.update(
        data_root=str(tmp_path), ann_file='all.json', data_prefix=dict(img=''), metainfo=dict(classes=('cat', 'dog')),
        filter_cfg=None)
    enable_balance(cfg, None)
    enter_scope(cfg)
    assert drawn(cfg) == [[0, 1]] * 3 + [[0]] * 10 + [[]]


def test_segmentation_is_refused(tmp_path):
    root = masks_root(tmp_path / 'my')
    message = '--balance is for classification and detection: a PairedSegDataset does not tell the classes of an image'
    with pytest.raises(UserError, match=re.escape(message)):
        own_data('segmentation', root)
