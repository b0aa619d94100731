"""What a toolbox answers, asked in dwnet/toolboxes alone; and a toolbox more, in thirty lines."""
import ast
import re
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import setuptools
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from PIL import Image

from dwnet import DWNet
from dwnet.engine import Runner
from dwnet.engine.preflight import preflight
from dwnet.errors import UserError
from dwnet.toolboxes import TOOLBOXES, known_toolbox_of, main_score, toolbox_of
from dwnet.toolboxes.base import Toolbox
from dwnet.toolboxes.own_data import use_own_data

ROOT = Path(__file__).parents[2]
NAMES = '|'.join([*TOOLBOXES, *(toolbox.distribution for toolbox in TOOLBOXES.values())])
# compat/ lists the private names of the toolboxes
FILES = [file for folder in ('dwnet', 'tools') for file in sorted((ROOT / folder).rglob('*.py'))
         if not {'toolboxes', 'compat', '.mim'}.intersection(file.relative_to(ROOT).parts)]


def words(file: Path) -> list[str]:
    """The names and strings of a module's code, without its docstrings."""
    tree = ast.parse(file.read_text(encoding='utf-8'))
    prose = {id(node.body[0].value) for node in ast.walk(tree) if getattr(node, 'body', None)
             and isinstance(node.body, list) and isinstance(node.body[0], ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found.append(node.value)
        elif isinstance(node, (ast.Name, ast.Attribute)):
            found.append(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found += [getattr(node, 'module', None) or '', *(alias.name for alias in node.names)]
    return found


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_other_room_names_a_toolbox(file):
    assert not [word for word in words(file) if re.search(rf'\b({NAMES})\b', word)]


def test_the_words_are_read():
    """The test above would pass if it saw no words."""
    found = words(ROOT / 'dwnet/toolboxes/mmdet/__init__.py')
    assert {'mmdet', 'mmdet.apis', 'mmdet.CocoMetric', 'DetInferencer'} <= set(found)
    assert not any('What mmdet answers' in word for word in found)


def test_the_extras_are_those_of_setup(monkeypatch):
    monkeypatch.setattr(setuptools, 'setup', lambda **_: None)
    extras = runpy.run_path(str(ROOT / 'setup.py'))['EXTRAS']
    for toolbox in TOOLBOXES.values():
        packages = [*extras[toolbox.extra], toolbox.no_deps]
        assert any(re.split('[<>=]', package)[0] == toolbox.distribution for package in packages)


def test_a_toolbox_without_a_module():
    cfg = Config(dict(default_scope='mmagic', model=dict(type='mmagic.EDSR')))
    toolbox = toolbox_of(cfg)
    assert type(toolbox) is Toolbox and toolbox.name == 'mmagic' and not toolbox.task
    toolbox.load()
    evaluator = dict(type='CocoMetric')
    assert toolbox.prepare_evaluator(evaluator, cfg) is evaluator
    with pytest.raises(UserError, match="analyze needs a config of mmpretrain, mmdet, mmseg, .* is of 'mmagic'"):
        known_toolbox_of(cfg, 'analyze')
    with pytest.raises(UserError, match='Linear cannot be exported'):
        toolbox.graph(torch.nn.Linear(1, 1))


# --- A toolbox more --------------------------------------------------------------------------------------


class Pictures(BaseDataset):
    """Images and their labels."""

    def load_data_list(self) -> list[dict]:
        lines = [line.rsplit(maxsplit=1) for line in Path(self.ann_file).read_text().splitlines()]
        return [dict(img_path=f'{self.data_root}/{name}', label=int(label)) for name, label in lines]

    def __getitem__(self, index: int) -> dict:
        info = self.get_data_info(index)
        image = np.asarray(Image.open(info['img_path']).convert('RGB'), np.float32) / 255
        return dict(inputs=torch.from_numpy(image).permute(2, 0, 1), labels=info['label'])


class Classifier(BaseModel):
    """DWNet with a linear layer behind it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = DWNet(arch=dict(embed_dims=8, depths=[1, 1, 1, 1]), out_indices=(3, ))
        self.head = torch.nn.Linear(64, num_classes)

    def forward(self, inputs, labels, mode='tensor'):
        logits = self.head(self.backbone(torch.stack(list(inputs)))[0].mean((2, 3)))
        if mode == 'loss':
            return dict(loss=torch.nn.functional.cross_entropy(logits, torch.tensor(labels)))
        return list(logits.argmax(1))


class Share(BaseMetric):
    """Images that are taken for what they are, in percent."""

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results += [float(a == b) for a, b in zip(data_samples, data_batch['labels'], strict=True)]

    def compute_metrics(self, results: list) -> dict:
        return dict(share=100 * sum(results) / len(results))


class Toy(Toolbox):
    """The thirty lines, or fewer."""
    task = 'classification'
    main_scores = {'toytools.Share': ('', {'share': 'share'})}

    def own_dataset(self, data, part):
        return dict(type='toytools.Pictures', data_root=str(data.root), ann_file=data.parts[part]['ann_file'],
                    metainfo=dict(classes=data.classes))

    def own_evaluator(self, cfg, data, part):
        return dict(type='toytools.Share')


@pytest.fixture
def toytools(monkeypatch):
    package = types.ModuleType('toytools')
    package.__path__ = []
    for kind in (Pictures, Classifier, Share):
        monkeypatch.setattr(kind, '__module__', 'toytools')
        setattr(package, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, 'toytools', package)
    monkeypatch.setitem(sys.modules, 'toytools.models', package)
    monkeypatch.setitem(TOOLBOXES, 'toytools', Toy('toytools'))


def test_a_toolbox_more(toytools, tmp_path):
    colours = dict(red=(255, 0, 0), blue=(0, 0, 255))
    for name, colour in colours.items():
        for i in range(10):
            file = tmp_path / 'my' / name / f'{i}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (32, 32), colour).save(file)
    loader = dict(dataset=dict(type='toytools.Pictures', pipeline=[]), batch_size=4, num_workers=0,
                  sampler=dict(type='DefaultSampler', shuffle=True))
    cfg = Config(dict(
        default_scope='toytools', work_dir=str(tmp_path / 'work'),
        model=dict(type='toytools.Classifier', num_classes=5),
        train_dataloader=loader, val_dataloader=loader, test_dataloader=loader, val_cfg={}, test_cfg={},
        train_cfg=dict(by_epoch=True, max_epochs=20), randomness=dict(seed=0),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)), val_evaluator=dict(type='toytools.Share'),
        test_evaluator=dict(type='toytools.Share')))
    data = use_own_data(cfg, str(tmp_path / 'my'))
    assert data.sizes == dict(train=16, val=4) and cfg.model.num_classes == 2 and main_score(cfg) == 'share'
    runner = Runner.from_cfg(cfg)
    preflight(runner)
    runner.train()
    assert runner.test() == dict(share=100.)
