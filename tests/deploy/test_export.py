"""Exported models: the same numbers in onnxruntime, OpenVINO and torch.export, at any batch and size."""
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from conftest import ROOT, read_config, run_tool
from mmengine.config import Config
from mmengine.registry import MODELS
from reference import fill
from torch import nn
from torch.export import Dim

from dwnet import TOKEN_MIXERS, DWNet
from dwnet.apis import init_model
from dwnet.deploy import export as exporting
from dwnet.deploy.comparison import compare
from dwnet.deploy.export import export
from dwnet.deploy.record import Record
from dwnet.deploy.runtimes import open_exported, openvino_core
from dwnet.deploy.trial_images import as_input, of_data, photographs
from dwnet.errors import UserError
from dwnet.toolboxes import toolbox_of_model
from dwnet.toolboxes.graphs import Backbone
from dwnet.toolboxes.mmdet.two_stage_graph import TwoStageDetector
from dwnet.toolboxes.mmseg.graph import AdaptiveAvgPool

NANO = dict(embed_dims=32, depths=(1, 1, 2, 1))
SMALL = dict(embed_dims=8, depths=(1, 1, 1, 1))  # exported in seconds
DENSE = dict(out_norm_cfg=dict(type='BN'), pad_to_window=True)
CLASSIFICATION = 'configs/classification/dwnet-nano_digits.py'
DETECTION = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'
SEGMENTATION = 'configs/segmentation/upernet_dwnet-nano_digits.py'
SHAPES = [(1, 3, 224, 224), (2, 3, 75, 122), (3, 3, 96, 41)]
FORMS = dict(onnx='.onnx', openvino='.xml', torch='.pt2')
LONG = pytest.mark.long
# an export takes 15 seconds
EACH_FORM = pytest.mark.parametrize('to', [
    'onnx', *(pytest.param(form, marks=LONG) for form in ('openvino', 'torch', 'half'))])


def randomise(model: nn.Module) -> nn.Module:
    """Weights and statistics far from the initialisation, under which a part could be lost unseen."""
    model.load_state_dict(fill({k: list(v.shape) for k, v in model.state_dict().items()}, seed=3))
    return model.eval()


def agree(ours, theirs) -> bool:
    return all(a.shape == b.shape and (a - b).abs().max() <= 1e-4 * b.abs().max()
               for a, b in zip(ours, theirs, strict=True))


def run_onnx(path, images: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return [torch.from_numpy(array) for array in session.run(None, {'image': images.numpy()})]


def run(path, images: torch.Tensor) -> list[torch.Tensor]:
    """By the library that runs the file, and by nothing of this project but OpenVINO's one Core."""
    if path.suffix == '.onnx':
        return run_onnx(path, images)
    if path.suffix == '.xml':
        model = openvino_core().compile_model(path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
        found = model(images.numpy())
        return [torch.from_numpy(array) for array in found.to_tuple()]
    with torch.no_grad():
        found = torch.export.load(path).module()(images)
    return [found] if isinstance(found, torch.Tensor) else list(found)


def small_model(**backbone) -> nn.Module:
    cfg = read_config(CLASSIFICATION)
    cfg.model.backbone.update({'arch': SMALL, **backbone})
    cfg.model.head.in_channels = 8 * SMALL['embed_dims']
    model = init_model(cfg)
    model.backbone = randomise(model.backbone)
    return model


# --- One small classifier, in each form ----------------------------------------------------------------


@pytest.fixture(scope='module')
def classifier() -> nn.Module:
    model = small_model()
    model.dataset_meta = dict(classes=tuple('abcdefghij'), palette=[(i, 0, 255) for i in range(10)])
    return model


class Files(dict):
    """The classifier's files by their form, each written when it is first asked for."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.model, self.folder = model, folder

    def __missing__(self, form: str) -> Path:
        self.model.train()
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        folder, to = self.folder / form, 'onnx' if form == 'half' else form
        self[form] = export(self.model, folder / f'digits{FORMS[to]}', to, half=form == 'half')
        assert all(module.training for module in self.model.modules())
        assert all(torch.equal(value, before[name]) for name, value in self.model.state_dict().items())
        assert {file.suffix for file in folder.iterdir()} == {FORMS[to], *['.bin'] * (to == 'openvino')}
        self.model.eval()
        return self[form]


@pytest.fixture(scope='module')
def files(classifier, tmp_path_factory) -> Files:
    return Files(classifier, tmp_path_factory.mktemp('exported'))


@EACH_FORM
def test_classifier(to, files, classifier):
    """RGB in, logits out."""
    for batch, channels, *size in [*SHAPES, (1, 3, 64, 64)] + [(2, 3, 33, 20)] * (to != 'torch'):
        rgb = torch.randint(0, 256, (batch, channels, *size))
        inputs = classifier.data_preprocessor(dict(inputs=list(rgb.flip(1).byte())))['inputs']  # toolboxes read BGR
        with torch.no_grad():
            expected = classifier(inputs, mode='tensor')
        found, = run(files[to], rgb.float())
        if to == 'half':
            assert 1e-6 < (found - expected).abs().max() / expected.abs().max() < 2e-2
        else:
            assert agree([found], [expected]), (batch, size)


@LONG
def test_half_of_the_size(files):
    half, whole = (files[name].stat().st_size for name in ('half', 'onnx'))
    assert .4 < half / whole < .75, 'the nodes of a small graph are a part of it'
    assert open_exported(files['half']).record.precision == 'float16'


def test_a_stranger_reads_the_name_of_the_class(files, classifier):
    """With onnxruntime and NumPy alone."""
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64)).astype(np.float32)
    names = classifier.dataset_meta['classes']
    session = onnxruntime.InferenceSession(files['onnx'])
    metadata = session.get_modelmeta().custom_metadata_map
    best = session.run(None, dict(image=image))[0][0].argmax()
    assert json.loads(metadata['labels'])[best] == names[best] and metadata['task'] == 'classification'


@LONG
def test_a_stranger_reads_the_names_of_the_classes(files, classifier):
    """With OpenVINO or PyTorch alone."""
    names = classifier.dataset_meta['classes']
    model = openvino.Core().read_model(files['openvino'])
    assert json.loads(model.get_rt_info('labels').astype(str)) == list(names)
    assert model.get_rt_info('task').astype(str) == 'classification'
    extra = dict(labels='', task='')
    torch.export.load(files['torch'], extra_files=extra)
    assert json.loads(extra['labels']) == list(names) and extra['task'] == 'classification'


@pytest.mark.parametrize('to', ['onnx', pytest.param('openvino', marks=LONG)])
def test_the_record_in_the_file_is_the_whole_record(to, files, classifier):
    exported, graph = open_exported(files[to]), toolbox_of_model(classifier).graph(classifier)
    assert exported.record == Record.of(classifier, graph) and exported.outputs == ['logits']


def test_a_graph_of_stock_operators_without_traces_of_this_machine(files):
    model = onnx.load(files['onnx'])
    assert {node.domain for node in model.graph.node} == {''} and not model.functions
    assert model.opset_import[0].version == 20
    assert not any(node.op_type == 'BatchNormalization' for node in model.graph.node)
    axes = [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)]
    assert axes == [['batch', 3, 'height', 'width'], ['batch', 10]]
    assert not any(trace in files['onnx'].read_bytes() for trace in (str(ROOT).encode(), b'site-packages'))


@pytest.mark.parametrize('damage, message', [
    ('missing', 'is missing'), ('cut', 'is no file that onnxruntime can run'), ('empty', 'is no file that onnxrun'),
    ('stranger', 'only files of tools/export.py do'), ('record', 'has a record that cannot be read'),
    ('folder', 'is missing'), ('name', 'exported files are'),
    pytest.param('no bin', 'is no file that OpenVINO can run', marks=LONG)])
def test_files_that_cannot_be_opened(damage, message, files, tmp_path):
    path = tmp_path / 'x.onnx'
    content = files['onnx'].read_bytes()
    if damage in ('stranger', 'record'):
        model = onnx.load(files['onnx'])
        del model.metadata_props[:]
        if damage == 'record':
            onnx.helper.set_model_props(model, dict(dwnet='{"task": 1, "labels": 7}'))
        onnx.save(model, path)
    elif damage == 'folder':
        path.mkdir()
    elif damage == 'no bin':
        path = path.with_suffix('.xml')
        shutil.copy(files['openvino'], path)
    elif damage == 'name':
        path = path.with_suffix('.pt2')
        path.touch()
    elif damage != 'missing':
        path.write_bytes(dict(cut=content[:len(content) // 2], empty=b'')[damage])
    with pytest.raises(UserError, match=message):
        open_exported(path)


# --- What is said and compared, without a file ---------------------------------------------------------


def test_the_record_of_each_task():
    for config, task, outputs in ((CLASSIFICATION, 'classification', ['logits']),
                                  (SEGMENTATION, 'segmentation', ['logits']),
                                  (DETECTION, 'detection', ['boxes', 'scores', 'labels', 'masks'])):
        model = init_model(config)
        model.dataset_meta = dict(classes=('one', 'two'), palette=[(1, 2, 3), (4, 5, 6)])
        record = Record.of(model, toolbox_of_model(model).graph(model))
        assert (record.task, list(record.outputs)) == (task, outputs)
        assert record.labels == ('one', 'two') and record.palette == ((1, 2, 3), (4, 5, 6))
        assert record.normalisation['input'] == 'RGB, float32, 0 to 255' and len(record.normalisation['mean']) == 3
        assert all(step['type'].rpartition('.')[2][:4] not in ('Load', 'Pack') for step in record.resizing)
        assert Record.from_json(record.to_json(), 'x').labels == record.labels
    backbone = Record.of(model, Backbone(model))
    assert backbone.task == 'features' and not backbone.labels and 'stride8' in backbone.outputs


def test_a_model_without_a_config():
    """As a registry builds it; the toolbox is that of the model's class."""
    model = MODELS.build(read_config(CLASSIFICATION).model).eval()
    record = Record.of(model, toolbox_of_model(model).graph(model))
    assert record.task == 'classification' and not record.labels and not record.resizing


def test_the_strides_of_other_backbones_are_measured():
    cfg = Config(dict(
        default_scope='mmpretrain', model=dict(
            type='ImageClassifier', data_preprocessor=dict(num_classes=2),
            backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=(1, 2, 3),
                          strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)))))
    assert list(Backbone(init_model(cfg)).axes) == ['stride8', 'stride8_2', 'stride8_3']


@pytest.mark.parametrize('size', [1, 2, 3, 6])
def test_adaptive_pooling(size):
    for shape in ((2, 5, 6, 6), (1, 3, 7, 13), (2, 4, 5, 17), (1, 2, 1, 4)):
        x = torch.randn(shape)
        assert torch.allclose(AdaptiveAvgPool(size)(x), nn.AdaptiveAvgPool2d(size)(x), atol=1e-6)


def of_eager(graph: nn.Module):
    """Runs a graph in PyTorch as a file is run."""
    def run(images):
        with torch.no_grad():
            found = graph(torch.from_numpy(images))
        found = [found] if isinstance(found, torch.Tensor) else found
        return {name: output.numpy() for name, output in zip(graph.axes, found, strict=True)}
    return run


def test_the_images_of_the_config(small_digits):
    cfg = read_config(CLASSIFICATION)
    cfg.merge_from_dict({f'{part}_dataloader.dataset.data_root': str(small_digits) for part in ('train', 'test')})
    for part in ('train', 'test'):
        images = of_data(cfg, part, 4)
        assert len(images) == 4 and images[0].dtype == torch.uint8 and images[0].shape[0] == 3
        assert not torch.equal(images[0], images[1]) and torch.equal(images[3], of_data(cfg, part, 4)[3])
    assert torch.equal(as_input(images)[0, 0], images[0][2].float()), 'BGR becomes RGB'


@pytest.mark.parametrize('cascade', [False, True])
def test_a_two_stage_detector_is_compared_where_it_finds_nothing(cascade, monkeypatch):
    """The threshold is lowered until there are boxes; the graph's are mmdet's, and wrong ones disagree."""
    cfg = read_config(DETECTION)
    cfg.model.backbone.arch = SMALL
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    cfg.model.train_cfg, cfg.model.test_cfg.rpn.nms_pre = None, 50
    cfg.model.test_cfg.rcnn.score_thr = .9
    if not cascade:
        cfg.model.type, head = 'MaskRCNN', cfg.model.roi_head
        head.type, head.bbox_head = 'StandardRoIHead', head.bbox_head[0]
        del head.num_stages, head.stage_loss_weights
    torch.manual_seed(1)
    model = init_model(cfg)
    graph = toolbox_of_model(model).graph(model)
    batches = photographs(model, graph)
    assert not compare(of_eager(graph), graph, model, batches, 1e-4), 'nothing is found'
    graph.find_more(model, [batch[0] for batch in batches])
    assert compare(of_eager(graph), graph, model, batches, 1e-4)
    masks = TwoStageDetector._masks
    monkeypatch.setattr(TwoStageDetector, '_masks', lambda *args: masks(*args) + .01)
    with pytest.raises(UserError, match='disagree on masks'):
        compare(of_eager(graph), graph, model, batches, 1e-4)


class Boxes(nn.Module):
    """A detector that always finds the same."""
    axes = {name: {0: 'detections'} for name in ('boxes', 'scores', 'labels')}

    def __init__(self, boxes, scores, labels) -> None:
        super().__init__()
        self.found = [torch.tensor(boxes, dtype=torch.float), torch.tensor(scores), torch.tensor(labels)]

    def reference(self, model, pictures):
        return self.found

    def run(self, images):
        return {name: output.numpy() for name, output in zip(self.axes, self.found)}


def test_objects_of_one_score_may_change_places():
    boxes, scores, labels = [[0, 0, 9, 9], [50, 50, 60, 60], [0, 0, 9, 9]], [.5, .5 - 1e-7, .4], [1, 2, 2]
    theirs, pictures = Boxes(boxes, scores, labels), [[torch.zeros(3, 64, 64, dtype=torch.uint8)]]
    order = [1, 0, 2]
    ours = Boxes([boxes[i] for i in order], scores, [labels[i] for i in order])
    assert compare(ours.run, theirs, theirs, pictures, 1e-4)
    for wrong in (Boxes(boxes, scores, [2, 1, 2]), Boxes([[0, 0, 9, 9.1], *boxes[1:]], scores, labels),
                  Boxes(boxes, [.5, .49, .4], labels), Boxes(boxes[:2], scores[:2], labels[:2])):
        with pytest.raises(UserError, match='the file and PyTorch disagree on'):
            compare(wrong.run, theirs, theirs, pictures, 1e-4)


def test_masks_tell_objects_without_a_pixel_apart():
    """All of them have the score 0 and no box, so their order is open."""
    masks = torch.full((4, 256, 256), .05)
    masks[range(4), :, 1:5] = torch.tensor([.1, .2, .3, .4])[:, None, None]
    theirs, ours, wrong = (Boxes([[0, 0, 0, 0]] * 4, [0.] * 4, [5, 5, 5, 3]) for _ in range(3))
    for detector, shown in ((theirs, masks), (ours, masks[[2, 0, 1, 3]]), (wrong, masks[[2, 3, 1, 0]])):
        detector.axes = {**Boxes.axes, 'image_masks': {0: 'detections'}}
        detector.found.append(shown)
    pictures = [[torch.zeros(3, 64, 64, dtype=torch.uint8)]]
    assert compare(ours.run, theirs, theirs, pictures, 1e-4)
    with pytest.raises(UserError, match='the file and PyTorch disagree on image_masks'):
        compare(wrong.run, theirs, theirs, pictures, 1e-4)


def test_the_last_object_may_be_another():
    """Of twelve: its score and that of the next candidate are equal, and a detector keeps its twelve best."""
    boxes, scores = [[9. * i, 0, 9. * i + 8, 8] for i in range(12)], [.9 - .05 * i for i in range(12)]
    theirs, pictures = Boxes(boxes, scores, [1] * 12), [[torch.zeros(3, 64, 128, dtype=torch.uint8)]]
    other = Boxes([*boxes[:-1], [0, 40, 9, 49]], scores, [1] * 11 + [4])
    assert compare(other.run, theirs, theirs, pictures, 1e-4)
    for wrong in (Boxes(boxes, scores, [4] + [1] * 11), Boxes(boxes, scores, [1] * 10 + [4, 4]),
                  Boxes([*boxes[:-2], [0, 40, 9, 49], [0, 40, 9, 49]], scores, [1] * 12),
                  Boxes(other.found[0].tolist(), [*scores[:-1], .3], [1] * 11 + [4])):
        with pytest.raises(UserError, match='the file and PyTorch disagree on'):
            compare(wrong.run, theirs, theirs, pictures, 1e-4)


def test_rounded_weights_may_move_objects_a_little():
    boxes, scores, labels = [[0, 0, 9, 9], [50, 50, 60, 60], [20, 0, 29, 9]], [.9, .8, .1], [1, 2, 2]
    theirs, pictures = Boxes(boxes, scores, labels), [[torch.zeros(3, 64, 64, dtype=torch.uint8)]]
    moved = Boxes([[0, 0, 9, 10], [50, 50, 60, 59]], [.85, .84], [1, 2])
    assert compare(moved.run, theirs, theirs, pictures, 2e-2, rounded=True)
    for wrong in (Boxes(boxes, scores, [2, 2, 2]), Boxes([[30, 0, 39, 9], *boxes[1:]], scores, labels),
                  Boxes(boxes, [.7, .6, .1], labels), Boxes(boxes[:1], scores[:1], labels[:1]),
                  Boxes([*boxes, [5, 40, 9, 60]], [*scores[:2], .75, .75], [*labels[:2], 3, 3])):
        with pytest.raises(UserError, match='find other objects'):
            compare(wrong.run, theirs, theirs, pictures, 2e-2, rounded=True)


# --- Errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('place', ['file/x.onnx', 'folder.onnx'])
def test_a_place_that_cannot_be_written_to(place, tmp_path, classifier, monkeypatch):
    (tmp_path / 'file').touch()
    (tmp_path / 'folder.onnx').mkdir()
    monkeypatch.setattr(exporting, '_write', lambda graph, path, *args: [path.parent.mkdir(), path.touch()])
    monkeypatch.setattr(exporting, 'compare', lambda *args: True)
    with pytest.raises(UserError, match=f'{place} cannot be written'):
        export(classifier, tmp_path / place)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize('name, to, half, message', [
    ('x.onnx', 'openvino', False, 'the name of a file for openvino ends with .xml'),
    ('x', 'onnx', False, 'ends with .onnx'), ('x.pt2', 'torch', True, 'float16 weights are for onnx and openvino'),
    ('x.onnx', 'onx', False, "did you mean 'onnx'")])
def test_arguments_that_do_not_fit_together(name, to, half, message, classifier, tmp_path):
    with pytest.raises(UserError, match=message):
        export(classifier, tmp_path / name, to, half=half)
    assert not list(tmp_path.iterdir())


def test_a_head_of_the_same_name_is_another(tmp_path):
    cfg = read_config(DETECTION)
    cfg.model.train_cfg = None
    model = init_model(cfg)
    model.roi_head.__class__ = type('CascadeRoIHead', (type(model.roi_head), ), {})
    with pytest.raises(UserError, match='of the RoI heads only StandardRoIHead and CascadeRoIHead can'):
        export(model, tmp_path / 'x.onnx')


def test_a_file_that_disagrees_is_not_left(tmp_path, monkeypatch, classifier, files):
    """The file of another model."""
    run = open_exported(files['onnx']).run

    def write(graph, path, *args):
        path.parent.mkdir()
        path.touch()
        return lambda images: run(images + 1)

    monkeypatch.setattr(exporting, '_write', write)
    with pytest.raises(UserError, match='disagree on logits for images of .* no file was written'):
        export(classifier, tmp_path / 'wrong.onnx')
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_says_so(tmp_path):
    cfg = read_config(CLASSIFICATION)
    cfg.model.pop('head')
    done = pytest.raises(UserError, export, init_model(cfg), tmp_path / 'x.onnx')
    assert 'by --backbone' in str(done.value) and not list(tmp_path.iterdir())


# --- The tool, and whole models ------------------------------------------------------------------------

# Name → config, and what is changed in it
MODELS_OF_TASKS = {
    'classifier': (CLASSIFICATION, {}),
    'dynamic classifier': (CLASSIFICATION, {'model.backbone.token_mixer': 'dynamic'}),
    'inhomogeneous classifier': (CLASSIFICATION, {'model.backbone.token_mixer': 'inhomogeneous'}),
    'segmentor': (SEGMENTATION, {}),
    'dynamic segmentor': (SEGMENTATION, {'model.backbone.token_mixer': 'dynamic'}),
    'Cascade Mask R-CNN': (DETECTION, {}),
    'dynamic Cascade Mask R-CNN': (DETECTION, {'model.backbone.token_mixer': 'dynamic'}),
}


@LONG
@pytest.mark.parametrize('to', ['onnx', 'openvino'])
@pytest.mark.parametrize('name', MODELS_OF_TASKS)
def test_models_of_the_tasks_agree_with_pytorch(name, to, tmp_path):
    """At sizes other than those at which the exporter compares."""
    config, changes = MODELS_OF_TASKS[name]
    cfg = read_config(config)
    cfg.merge_from_dict(changes)
    model = randomise(init_model(cfg))
    path = export(model, tmp_path / f'model{FORMS[to]}', to)
    graph = toolbox_of_model(model).graph(model)
    whole = photographs(model, graph)[0][0]
    for height, width in ((96, 41), (75, 122), (224, 131)):
        picture = nn.functional.interpolate(whole[None].float(), (height, width)).byte()[0]
        compare(open_exported(path).run, graph, model, [[picture]], 1e-4)


def weights_of(config: str, folder):
    model = randomise(init_model(config))
    torch.save(dict(state_dict=model.state_dict()), folder / 'weights.pth')
    return folder / 'weights.pth'


@LONG
@pytest.mark.parametrize('arch', ['nano', 'tiny'])
@pytest.mark.parametrize('mixer', TOKEN_MIXERS.module_dict)
@pytest.mark.parametrize('to', FORMS)
def test_backbone(to, arch, mixer, tmp_path):
    """Compared with the network, not deployed."""
    model = small_model(arch=NANO if arch == 'nano' else arch, token_mixer=mixer, out_indices=(0, 1, 2, 3))
    path = export(model, tmp_path / f'backbone{FORMS[to]}', to, backbone_only=True)
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    for shape in SHAPES:
        images = torch.rand(shape) * 255
        with torch.no_grad():
            assert agree(run(path, images), model.backbone((images - mean) / std))


@LONG
@pytest.mark.parametrize('mixer', TOKEN_MIXERS.module_dict)
def test_torch_export(mixer, tmp_path):
    """Of the bare network, by anybody."""
    model = randomise(DWNet(NANO, mixer))
    dynamic = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, )
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96), ), dynamic_shapes=dynamic)
    assert not any('dwnet' in str(node.target) for node in program.graph.nodes if node.op == 'call_function')
    torch.export.save(program, tmp_path / 'backbone.pt2')
    loaded = torch.export.load(tmp_path / 'backbone.pt2').module()
    with torch.no_grad():
        for shape in SHAPES:
            x = torch.randn(shape)
            assert agree(loaded(x), model(x))


def test_the_tool_says_what_it_wrote(tmp_path, monkeypatch, files):
    """The exporter is another test's."""
    weights, out = weights_of(CLASSIFICATION, tmp_path), tmp_path / 'new' / 'digits.onnx'

    def copied(model, path, to, backbone_only, half):
        assert (to, backbone_only, half) == ('onnx', False, True)
        path.parent.mkdir()
        return shutil.copy(files['onnx'], path)

    monkeypatch.setattr('dwnet.deploy.export.export', copied)
    monkeypatch.setattr('dwnet.commands.export.export', copied, raising=False)
    done = run_tool('tools/export.py', CLASSIFICATION, weights, '--out', out, '--half')
    assert done.returncode == 0, done.stderr
    assert 'image: RGB, float32, 0 to 255' in done.stdout and 'logits: before the softmax, (batch, cla' in done.stdout
    assert 'agree to 0.02 of the largest value' in done.stdout


@LONG
def test_segmentor_by_the_tool(tmp_path):
    from mmseg.structures import SegDataSample
    weights, out = weights_of(SEGMENTATION, tmp_path), tmp_path / 'digits.onnx'
    done = run_tool('tools/export.py', SEGMENTATION, weights, '--out', out)
    assert done.returncode == 0 and 'before the softmax, (batch, classes, height, width)' in done.stdout, done.stderr
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
    done = run_tool('tools/export.py', DETECTION, weights, '--out', out)
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
