"""Exported models: the same numbers in onnxruntime and torch.export, at any batch and size."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import read_config, run_tool
from mmengine.config import Config
from mmengine.registry import MODELS
from reference import fill
from torch import nn
from torch.export import Dim

from dwnet import TOKEN_MIXERS, DWNet
from dwnet.apis import init_model
from dwnet.deploy import export
from dwnet.deploy.export import export_onnx
from dwnet.errors import UserError
from dwnet.toolboxes.mmdet.two_stage_graph import TwoStageDetector
from dwnet.toolboxes.mmseg.graph import AdaptiveAvgPool

NANO = dict(embed_dims=32, depths=(1, 1, 2, 1))
DENSE = dict(out_norm_cfg=dict(type='BN'), pad_to_window=True)
CLASSIFICATION = 'configs/classification/dwnet-nano_digits.py'
DETECTION = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'
SEGMENTATION = 'configs/segmentation/upernet_dwnet-nano_digits.py'
SHAPES = [(1, 3, 224, 224), (2, 3, 75, 122), (3, 3, 96, 41)]
LONG = pytest.mark.long
# graphs of dynamic kernels have many nodes, and take their time
EACH_MIXER = pytest.mark.parametrize('mixer', [
    pytest.param(m, marks=LONG) if m in ('dynamic', 'inhomogeneous') else m for m in TOKEN_MIXERS.module_dict])


def randomise(model: nn.Module) -> nn.Module:
    """Weights and statistics far from the initialisation, under which a part could be lost unseen."""
    model.load_state_dict(fill({k: list(v.shape) for k, v in model.state_dict().items()}, seed=3))
    return model.eval()


def backbone(arch, mixer, dense=False) -> DWNet:
    return randomise(DWNet(arch, mixer, **(DENSE if dense else {})))


def agree(ours, theirs) -> bool:
    return all(a.shape == b.shape and (a - b).abs().max() <= 1e-4 * b.abs().max()
               for a, b in zip(ours, theirs, strict=True))


def run_onnx(path, images: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return [torch.from_numpy(array) for array in session.run(None, {'image': images.numpy()})]


def weights_of(config: str, folder):
    model = randomise(init_model(config))
    torch.save(dict(state_dict=model.state_dict()), folder / 'weights.pth')
    return folder / 'weights.pth'


@pytest.mark.parametrize('arch', ['nano', pytest.param('tiny', marks=LONG)])
@EACH_MIXER
def test_backbone(arch, mixer, tmp_path):
    """Through the function, deployed and not; compared with the network, and with stock operators only."""
    cfg = read_config(CLASSIFICATION)
    cfg.model.backbone.update(arch=NANO if arch == 'nano' else arch, token_mixer=mixer, out_indices=(0, 1, 2, 3))
    model = init_model(cfg)
    model.backbone = randomise(model.backbone)
    path = export_onnx(model, tmp_path / 'backbone.onnx', backbone_only=True)
    graph = onnx.load(path)
    assert {node.domain for node in graph.graph.node} == {''} and graph.opset_import[0].version >= 17
    assert not any(node.op_type == 'BatchNormalization' for node in graph.graph.node)
    assert not list(tmp_path.glob('.*'))
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    for shape in SHAPES:
        images = torch.rand(shape) * 255
        with torch.no_grad():
            assert agree(run_onnx(path, images), model.backbone((images - mean) / std))


@LONG
@pytest.mark.parametrize('mixer', TOKEN_MIXERS.module_dict)
def test_torch_export(mixer, tmp_path):
    model = backbone(NANO, mixer)
    dynamic = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, )
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96), ), dynamic_shapes=dynamic)
    assert not any('dwnet' in str(node.target) for node in program.graph.nodes if node.op == 'call_function')
    torch.export.save(program, tmp_path / 'backbone.pt2')
    loaded = torch.export.load(tmp_path / 'backbone.pt2').module()
    with torch.no_grad():
        for shape in SHAPES:
            x = torch.randn(shape)
            assert agree(loaded(x), model(x))


def test_classifier_by_the_tool(tmp_path):
    """RGB in, logits out; what the file says of itself is so."""
    weights, out = weights_of(CLASSIFICATION, tmp_path), tmp_path / 'new' / 'digits.onnx'
    done = run_tool('tools/export_onnx.py', CLASSIFICATION, weights, '--out', out)
    assert done.returncode == 0 and 'image (batch, 3, height, width)' in done.stdout
    assert 'logits (batch, 10)' in done.stdout
    model = init_model(CLASSIFICATION, weights)
    rgb = torch.randint(0, 256, (3, 3, 70, 90))
    batch = model.data_preprocessor(dict(inputs=list(rgb.flip(1).byte())))  # toolboxes read BGR
    with torch.no_grad():
        assert agree(run_onnx(out, rgb.float()), [model(batch['inputs'], mode='tensor')])


@LONG
def test_segmentor_by_the_tool(tmp_path):
    from mmseg.structures import SegDataSample
    weights, out = weights_of(SEGMENTATION, tmp_path), tmp_path / 'digits.onnx'
    done = run_tool('tools/export_onnx.py', SEGMENTATION, weights, '--out', out)
    assert done.returncode == 0 and done.stdout.count(', height, width)') == 2  # in and out
    model = init_model(SEGMENTATION, weights)
    for batch, _, height, width in SHAPES:
        rgb = torch.randint(0, 256, (batch, 3, height, width))
        meta = dict(ori_shape=(height, width), img_shape=(height, width))
        expected = model.test_step(dict(inputs=list(rgb.flip(1).byte()),
                                        data_samples=[SegDataSample(metainfo=meta) for _ in rgb]))
        assert agree(run_onnx(out, rgb.float()), [torch.stack([sample.seg_logits.data for sample in expected])])


@LONG
def test_detector_by_the_tool(tmp_path, small_digits):
    """Boxes, scores, labels and masks of scenes are those of mmdet."""
    import cv2
    from mmdet.structures import DetDataSample
    weights, out = weights_of(DETECTION, tmp_path), tmp_path / 'digits.onnx'
    done = run_tool('tools/export_onnx.py', DETECTION, weights, '--out', out)
    assert done.returncode == 0, done.stderr
    model, found = init_model(DETECTION, weights), 0
    for path, size in zip(sorted((small_digits / 'scenes/test').iterdir()), ((128, 128), (150, 97), (64, 200))):
        bgr = cv2.resize(cv2.imread(str(path)), size)
        picture = torch.from_numpy(np.ascontiguousarray(bgr.transpose(2, 0, 1)))
        meta = dict(ori_shape=bgr.shape[:2], img_shape=bgr.shape[:2], scale_factor=(1., 1.))
        data = dict(inputs=[picture], data_samples=[DetDataSample(metainfo=meta)])
        expected = model.test_step(data)[0].pred_instances
        boxes, scores, labels, masks = run_onnx(out, picture.flip(0)[None].float())
        assert torch.equal(labels, expected.labels) and len(masks) == len(boxes)
        assert torch.allclose(boxes, expected.bboxes, atol=1e-2) and torch.allclose(scores, expected.scores, atol=1e-4)
        found += len(boxes)
    assert found


@pytest.mark.parametrize('cascade', [False, pytest.param(True, marks=LONG)])
def test_a_detector_is_compared_where_it_finds_nothing(cascade, tmp_path, monkeypatch):
    """An untrained detector: a second file shows that boxes and masks agree, and that wrong masks disagree."""
    cfg = read_config(DETECTION)
    cfg.model.backbone.arch = NANO
    cfg.model.train_cfg, cfg.model.test_cfg.rpn.nms_pre = None, 50
    cfg.model.test_cfg.rcnn.score_thr = .9
    if not cascade:
        cfg.model.type, head = 'MaskRCNN', cfg.model.roi_head
        head.type, head.bbox_head = 'StandardRoIHead', head.bbox_head[0]
        del head.num_stages, head.stage_loss_weights
    torch.manual_seed(1)
    model = init_model(cfg)
    if cascade:
        seen, compare = [], export._compare
        monkeypatch.setattr(export, '_compare', lambda *args: seen.append(compare(*args)) or seen[-1])
        path = export_onnx(model, tmp_path / 'detector.onnx')
        assert seen == [False, True] and list(tmp_path.iterdir()) == [path]
        assert model.test_cfg.rcnn.score_thr == model.roi_head.test_cfg.score_thr == .9
        assert len(run_onnx(path, torch.rand(1, 3, 96, 96))[0]) == 0, 'the file has the threshold of the config'
    masks = TwoStageDetector._masks
    monkeypatch.setattr(TwoStageDetector, '_masks', lambda *args: masks(*args) + .01)
    with pytest.raises(UserError, match='disagree on masks'):
        export_onnx(model, tmp_path / 'wrong.onnx')


def test_the_strides_of_other_backbones_are_measured(tmp_path):
    cfg = Config(dict(
        default_scope='mmpretrain', model=dict(
            type='ImageClassifier', data_preprocessor=dict(num_classes=2),
            backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=(1, 2, 3),
                          strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)))))
    path = export_onnx(init_model(cfg), tmp_path / 'backbone.onnx', backbone_only=True)
    assert [output.name for output in onnx.load(path).graph.output] == ['stride8', 'stride8_2', 'stride8_3']


@pytest.mark.parametrize('size', [1, 2, 3, 6])
def test_adaptive_pooling(size):
    for shape in ((2, 5, 6, 6), (1, 3, 7, 13), (2, 4, 5, 17), (1, 2, 1, 4)):
        x = torch.randn(shape)
        assert torch.allclose(AdaptiveAvgPool(size)(x), nn.AdaptiveAvgPool2d(size)(x), atol=1e-6)


def test_a_model_in_training_stays_as_it_is(tmp_path):
    model = init_model(CLASSIFICATION).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = export_onnx(model, tmp_path / 'x.onnx')
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    images = torch.rand(2, 3, 64, 64) * 255
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    with torch.no_grad():
        assert agree(run_onnx(path, images), [model.eval()((images - mean) / std)])


@pytest.mark.parametrize('place', ['file/x.onnx', 'folder.onnx'])
def test_a_place_that_cannot_be_written_to(place, tmp_path):
    (tmp_path / 'file').touch()
    (tmp_path / 'folder.onnx').mkdir()
    with pytest.raises(UserError, match=f'{place} cannot be written'):
        export_onnx(init_model(CLASSIFICATION), tmp_path / place)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_head_of_the_same_name_is_another(tmp_path):
    cfg = read_config(DETECTION)
    cfg.model.train_cfg = None
    model = init_model(cfg)
    model.roi_head.__class__ = type('CascadeRoIHead', (type(model.roi_head), ), {})
    with pytest.raises(UserError, match='of the RoI heads only StandardRoIHead and CascadeRoIHead can'):
        export_onnx(model, tmp_path / 'x.onnx')


def test_a_file_that_disagrees_is_not_left(tmp_path, monkeypatch):
    model = init_model(CLASSIFICATION)
    monkeypatch.setattr('dwnet.toolboxes.graphs.Normalise.forward',
                        lambda self, image: (image - self.mean - 1) / self.std)
    with pytest.raises(UserError, match='disagree on logits for images of .* no file was written'):
        export_onnx(model, tmp_path / 'wrong.onnx')
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_says_so(tmp_path):
    cfg = read_config(CLASSIFICATION)
    cfg.model.pop('head')
    done = pytest.raises(UserError, export_onnx, init_model(cfg), tmp_path / 'x.onnx')
    assert 'by --backbone' in str(done.value) and not list(tmp_path.iterdir())


def test_a_model_without_a_config(tmp_path):
    """As a registry builds it; the toolbox is that of the model's class."""
    model = MODELS.build(read_config(CLASSIFICATION).model)
    assert export_onnx(model, tmp_path / 'model.onnx').is_file()
