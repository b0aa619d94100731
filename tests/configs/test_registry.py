"""The backbone in stock configs of the three toolboxes, each in a fresh process."""
import importlib.machinery
import sys
import types

import pytest
import torch
from conftest import run_python
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from dwnet import DWNet
from dwnet.registry import class_of, is_a, lineage
from dwnet.toolboxes import enter_scope, toolbox_of
from dwnet.toolboxes.checked import with_checks

# Where mmcv is the lite package, one `import dwnet` comes before the toolbox; nothing else names the project
# but the config's type.
STOCK = """
import torch
{first}
from mmengine.registry import init_default_scope
import {toolbox}.models
from {toolbox}.registry import MODELS
{code}
init_default_scope('{toolbox}')
model = MODELS.build(cfg.model).train()
loss, _ = model.parse_losses(model.loss(torch.rand(2, 3, 64, 64), samples))
before = [p.detach().clone() for p in model.parameters()]
optimizer = torch.optim.SGD(model.parameters(), lr=.1)
loss.backward()
optimizer.step()
moved = sum(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
print('stepped', type(model.backbone).__module__, moved > len(before) / 2, bool(loss.isfinite()))
"""

CODE = {
    'mmdet': """
from mmengine.structures import InstanceData
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
import numpy as np
from mmengine.hub import get_config
cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
cfg.model.backbone = dict(type=TYPE, arch='tiny')
cfg.model.neck.in_channels = [96, 192, 384, 768]
samples = []
for _ in range(2):
    masks = np.zeros((1, 64, 64), np.uint8)
    masks[:, 8:40, 8:40] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8., 8., 40., 40.]]), labels=torch.tensor([3]), masks=BitmapMasks(masks, 64, 64))
    samples.append(sample)
""",
    'mmseg': """
from mmengine.hub import get_config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
cfg = get_config('mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py')
cfg.model.pretrained = None
cfg.model.backbone = dict(type=TYPE, arch='tiny')
cfg.model.neck.in_channels = [96, 192, 384, 768]
samples = [SegDataSample(metainfo=dict(img_shape=(64, 64)), gt_sem_seg=PixelData(data=torch.randint(0, 9, (1, 64, 64))))
           for _ in range(2)]
cfg.model.decode_head.norm_cfg.type = 'BN'
""",
    'mmpretrain': """
from mmengine.hub import get_config
from mmpretrain.structures import DataSample
cfg = get_config('mmpretrain::resnet/resnet50_8xb32_in1k.py')
cfg.model.backbone = dict(type=TYPE, arch='tiny')
cfg.model.head.in_channels = 768
samples = [DataSample().set_gt_label(7) for _ in range(2)]
""",
}


@pytest.mark.parametrize('toolbox, name', [*((toolbox, 'dwnet.DWNet') for toolbox in CODE), ('mmdet', 'DWNet')])
def test_stock_config_trains_with_only_the_backbone_replaced(toolbox, name):
    code = STOCK.format(first='import dwnet', toolbox=toolbox, code=CODE[toolbox].replace('TYPE', repr(name)))
    assert 'stepped dwnet.models.dwnet True True' in run_python('-c', code).stdout


@pytest.mark.skipif(importlib.machinery.PathFinder.find_spec('pkg_resources') is None, reason=(
    'waits for setuptools below 82: without pkg_resources mmengine finds no config until dwnet is imported'))
def test_found_without_any_import():
    """mmpretrain needs no compiled operators, so there the config's type alone brings the project in."""
    code = STOCK.format(first='', toolbox='mmpretrain', code=CODE['mmpretrain'].replace('TYPE', "'dwnet.DWNet'"))
    assert 'stepped dwnet.models.dwnet True True' in run_python('-c', code).stdout


# --- A type is the class that it names -----------------------------------------------------------------
@pytest.fixture
def mypkg(monkeypatch):
    """A package of the user's, with classes that have the toolboxes' names."""
    module = types.ModuleType('mypkg')
    for base, name in ((object, 'CocoDataset'), (CocoDataset, 'MyDataset'), (LoadImageFromFile, 'LoadImageFromFile'),
                       (DWNet, 'MyDWNet'), (object, 'DWNet')):
        setattr(module, name, type(name, (base, ), dict(__module__='mypkg')))
    monkeypatch.setitem(sys.modules, 'mypkg', module)
    return module


@pytest.mark.parametrize('kind, expected', [
    ('CocoDataset', True), ('mmdet.CocoDataset', True), ('mmdet.datasets.coco.CocoDataset', True), (CocoDataset, True),
    ('mypkg.CocoDataset', False), ('mypkg.MyDataset', False), ('mmdet.LVISDataset', False), ('Nowhere', False),
    (None, False)])
def test_a_type_is_this_class_or_not(kind, expected, mypkg):
    assert (class_of(dict(type=kind), DATASETS, 'mmdet') is CocoDataset) is expected
    with DefaultScope.overwrite_default_scope('mmdet'):
        checked = with_checks(dict(dataset=dict(type=kind)))['dataset']['type']
    assert (checked == 'dwnet.CheckedCocoDataset') is expected and (expected or checked == kind)


def test_parts_of_a_scope_are_looked_for_there():
    assert class_of(dict(type='CocoDataset', _scope_='mmdet'), DATASETS, 'mmseg') is CocoDataset
    assert class_of(dict(type='CocoDataset'), DATASETS, 'mmseg') is None


def test_a_users_reader_stays(mypkg):
    pipeline = [dict(type=kind) for kind in (
        'LoadImageFromFile', mypkg.LoadImageFromFile, 'mypkg.LoadImageFromFile')]
    kinds = [step['type'] for step in with_checks(dict(pipeline=pipeline))['pipeline']]
    assert kinds == ['dwnet.LoadWholeImage', mypkg.LoadImageFromFile, 'mypkg.LoadImageFromFile']


def test_lineage_names_packages_and_classes(mypkg):
    assert lineage(dict(type='mypkg.MyDWNet'), MODELS)[:2] == ['mypkg.MyDWNet', 'dwnet.DWNet']
    assert lineage(dict(type='mypkg.DWNet'), MODELS) == ['mypkg.DWNet', 'builtins.object']
    assert lineage(dict(), MODELS) == []


def test_a_class_is_one_of_a_kind(mypkg):
    mine = dict(type='mypkg.MyDataset')
    assert is_a(mine, CocoDataset, DATASETS) and is_a(mine, (int, CocoDataset), DATASETS)
    assert is_a(mine, 'mmdet.CocoDataset', DATASETS) and is_a(mine, 'mypkg.MyDataset', DATASETS)
    assert not is_a(dict(type='mypkg.CocoDataset'), CocoDataset, DATASETS)
    assert not is_a(dict(type='mypkg.CocoDataset'), 'mmdet.CocoDataset', DATASETS)
    assert not is_a(dict(type='Nowhere'), CocoDataset, DATASETS) and not is_a(dict(), object, DATASETS)


@pytest.mark.parametrize('scope, kind, expected', [
    ('mmseg', 'EncoderDecoder', 'mmseg'), ('mmdet', 'mmpretrain.ImageClassifier', 'mmdet'),
    (None, 'mmdet.RetinaNet', 'mmdet'), (None, 'mmseg.models.segmentors.EncoderDecoder', 'mmseg'),
    ('mypkg', 'mmdet.RetinaNet', 'mmdet'), ('mmpose', 'TopdownPoseEstimator', 'mmpose'), (None, 'Nothing', None)])
def test_the_toolbox_of_a_config(scope, kind, expected):
    assert toolbox_of(Config(dict(default_scope=scope, model=dict(type=kind)))).name == expected


def test_the_toolbox_of_a_users_subclass():
    from mmdet.models import RetinaNet
    mine = type('Mine', (RetinaNet, ), dict(__module__='mypkg'))
    assert toolbox_of(Config(dict(default_scope=None, model=dict(type=mine)))).name == 'mmdet'
    assert toolbox_of(Config(dict(default_scope=None))).name is None
    assert toolbox_of(Config(dict(default_scope='mine', model=torch.nn.Linear(1, 1)))).name == 'mine'


def test_entering_a_scope_says_nothing(capfd):
    for scope in ('mmdet', 'mmseg', 'mmdet', None):
        enter_scope(Config(dict(default_scope=scope)))
        assert DefaultScope.get_current_instance().scope_name == (scope or 'mmengine')
    assert capfd.readouterr() == ('', '')
