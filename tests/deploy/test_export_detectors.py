"""Detectors without RoI heads as graphs: what mmdet predicts, and the same in exported files."""
import copy

import numpy as np
import pytest
import torch
from conftest import read_config
from digits_detectors import DETECTORS, digits_detector
from mmengine.config import Config, ConfigDict
from stock_configs import folder_of
from test_export import randomise
from torch import nn

from dwnet.apis import init_model, switch_to_deploy
from dwnet.deploy.comparison import compare
from dwnet.deploy.export import export
from dwnet.deploy.runtimes import open_exported
from dwnet.deploy.trial_images import photographs
from dwnet.errors import UserError
from dwnet.toolboxes import toolbox_of_model
from dwnet.toolboxes.mmdet.detector_graph import suppress

LONG = pytest.mark.long
EVERYDAY = ('retinanet', 'rtmdet', 'yolox', 'dino', 'panoptic')  # one of each kind of code
PUBLISHED = ['rtmdet_dwnet-tiny_100e_coco', 'dino-4scale_dwnet-tiny_12e_coco', 'mask2former_dwnet-tiny_lsj-50e_coco',
             'mask2former_dwnet-tiny_lsj-50e_coco-panoptic']


def detector(name: str) -> nn.Module:
    model = randomise(init_model(digits_detector(name)))
    if hasattr(model, 'panoptic_fusion_head'):  # random weights are sure of nothing
        model.panoptic_fusion_head.test_cfg.update(object_mask_thr=0., iou_thr=0.)
    if name == 'gfl':  # not weights: the distances whose probabilities are predicted
        model.bbox_head.integral.project.copy_(torch.arange(len(model.bbox_head.integral.project)))
    return model


def in_pytorch(graph: nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: output.numpy() for name, output in zip(graph.axes, graph(torch.from_numpy(images)))}


@pytest.mark.parametrize('name', [name if name in EVERYDAY else pytest.param(name, marks=LONG) for name in DETECTORS])
def test_the_graph_computes_what_mmdet_predicts(name):
    """For images of three sizes, one of them odd: the graph of the folded model against the model as it was."""
    model = detector(name)
    deployed = copy.deepcopy(model)
    switch_to_deploy(deployed)
    graph = toolbox_of_model(deployed).graph(deployed)
    batches = photographs(model, graph)
    graph.find_more(model, [batch[0] for batch in batches])
    assert compare(lambda images: in_pytorch(graph, images), graph, model, batches, 1e-4), 'nothing to compare'


@pytest.mark.parametrize('filter_low_score', [True, False])
@pytest.mark.parametrize('instances', [True, False])
def test_panoptic_fusion(filter_low_score, instances):
    """Overlapping discs, sure and unsure, of things and stuff: the same segments with the same numbers as mmdet's."""
    cfg = digits_detector('panoptic')
    cfg.model.test_cfg.update(filter_low_score=filter_low_score, instance_on=instances, object_mask_thr=.5, iou_thr=.4)
    model = init_model(cfg)
    graph = toolbox_of_model(model).graph(model)
    assert list(graph.axes) == ['boxes', 'scores', 'labels', 'image_masks'] * instances + ['panoptic']
    generator, segments = torch.Generator().manual_seed(0), set()
    for _ in range(20):
        centre = torch.rand(2, 30, 1, 1, generator=generator) * 60
        radius = torch.rand(30, 1, 1, generator=generator) * 20
        row, column = torch.arange(50.)[:, None], torch.arange(60.)
        masks = radius - ((row - centre[0])**2 + (column - centre[1])**2).sqrt()  # logits
        logits = torch.randn(30, 12, generator=generator) * 4
        found, expected = graph._panoptic(logits, masks), model.panoptic_fusion_head.panoptic_postprocess(logits, masks)
        assert torch.equal(found, expected.sem_seg[0].long())
        segments |= set(found.unique().tolist())
    assert {value // 1000 for value in segments} > {0, 1, 2} and 10 in segments and 11 in segments


def test_nms_is_that_of_mmcv():
    """Per class and for all classes at once; of no boxes, none."""
    from mmcv.ops import batched_nms
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, generator=generator) * 100 - 20
    boxes = torch.cat([corners, corners + torch.rand(300, 2, generator=generator) * 50], 1)
    scores, labels = torch.rand(300, generator=generator), torch.randint(0, 3, (300, ), generator=generator)
    kept = {}
    for agnostic in (False, True):
        method = ConfigDict(type='nms', iou_threshold=.5, class_agnostic=agnostic)
        kept[agnostic] = suppress(boxes, scores, labels, method)
        assert torch.equal(kept[agnostic], batched_nms(boxes, scores, labels, method)[1])
        assert not len(suppress(boxes[:0], scores[:0], labels[:0], method))
    assert len(kept[True]) < len(kept[False]) < 300


def refused(name: str, change) -> Config:
    cfg = digits_detector(name)
    change(cfg.model)
    return cfg


@pytest.mark.parametrize('cfg, words', [
    (lambda: refused('retinanet', lambda model: model.test_cfg.update(nms=dict(type='soft_nms', iou_threshold=.5))),
     "RetinaNet cannot be exported with nms={'type': 'soft_nms', 'iou_threshold': 0.5}"),
    (lambda: refused('dino', lambda model: model.data_preprocessor.update(pad_size_divisor=32)),
     'set data_preprocessor.pad_size_divisor=1'),
    (lambda: Config.fromfile(folder_of('mmdet') / 'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'),
     'RTMDet with a RTMDetInsSepBNHead cannot be exported: .* by --backbone'),
    (lambda: Config.fromfile(folder_of('mmdet') / 'solo/solo_r50_fpn_1x_coco.py'),
     'SOLO cannot be exported; its backbone alone can, by --backbone'),
])
def test_other_heads_are_refused_by_name(cfg, words):
    cfg = cfg()
    cfg.model.backbone.init_cfg = None
    model = init_model(cfg)
    with pytest.raises(UserError, match=words.replace('{', r'\{')):
        toolbox_of_model(model).graph(model)


# --- Exported files ------------------------------------------------------------------------------------


@LONG
@pytest.mark.parametrize('to, suffix', [('onnx', '.onnx'), ('openvino', '.xml')])
@pytest.mark.parametrize('name', EVERYDAY)
def test_an_exported_detector(name, to, suffix, tmp_path):
    """``export`` compares the file with mmdet; here on a picture of another size too."""
    model = detector(name)
    path = export(model, tmp_path / f'detector{suffix}', to)
    exported = open_exported(path)
    graph = toolbox_of_model(model).graph(copy.deepcopy(model))
    picture = torch.randint(0, 256, (3, 150, 97), dtype=torch.uint8)
    compare(exported.run, graph, model, [[picture]], 1e-4)
    assert exported.record.task == 'detection' and list(exported.record.labels[:10]) == list('0123456789')


@LONG
@pytest.mark.parametrize('name', PUBLISHED)
def test_a_published_recipe_is_exported(name, tmp_path):
    cfg = read_config(f'configs/detection/{name}.py')
    cfg.model.backbone.init_cfg = None
    assert export(randomise(init_model(cfg)), tmp_path / 'detector.onnx').is_file()


@LONG
@pytest.mark.parametrize('name', ['mask2former_dwnet-tiny_160k_ade20k-512x512', 'knet_dwnet-tiny_80k_ade20k-512x512',
                                  'segformer_dwnet-tiny_160k_ade20k-512x512'])
def test_a_published_segmentor_is_exported(name, tmp_path):
    cfg = read_config(f'configs/segmentation/{name}.py')
    cfg.model.backbone.update(init_cfg=None, arch=dict(embed_dims=96, depths=(1, 1, 1, 1)))
    assert export(randomise(init_model(cfg)), tmp_path / 'segmentor.onnx').is_file()
