"""int8 files: which layers are quantised and how, how near they are to float32, and what is kept and refused."""
import dataclasses
import os
import subprocess
import sys

import numpy as np
import onnx
import openvino
import pytest
import torch
from conftest import ROOT, read_config, run_tool
from reference import fill
from torch import nn

from dwnet.apis import init_model
from dwnet.commands import _int8
from dwnet.deploy import kept_layers
from dwnet.deploy.export import export
from dwnet.deploy.kept_layers import hold_score
from dwnet.deploy.quantise import Quantiser, quantise, quantiser
from dwnet.deploy.runtimes import open_exported
from dwnet.errors import UserError

CLASSIFICATION = 'configs/classification/dwnet-nano_digits.py'
SUFFIXES = dict(onnx='.onnx', openvino='.xml')
EACH_KIND = pytest.mark.parametrize('kind', SUFFIXES)


def images(number: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth pictures, unlike noise of the contrast of digits."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.uniform(0, 255, (number, 3, 6, 6))).float()
    smooth = nn.functional.interpolate(coarse, (64, 64), mode='bicubic').clamp(0, 255)
    return list(smooth.numpy()[:, None])


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A small classifier with weights far from the initialisation, in float32 and in int8, of each kind."""
    cfg = read_config(CLASSIFICATION)
    cfg.model.backbone.arch = dict(embed_dims=16, depths=(1, 1, 1, 1))
    cfg.model.head.in_channels = 128
    model = init_model(cfg)
    model.load_state_dict(fill({name: list(value.shape) for name, value in model.state_dict().items()}, seed=3))
    folder = tmp_path_factory.mktemp('files')
    found = {}
    for kind, suffix in SUFFIXES.items():
        whole = export(model, folder / f'float32{suffix}', kind, images=[])
        found[kind] = whole, folder / f'int8{suffix}'
        quantise(whole, images(16), found[kind][1])
    return found


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@EACH_KIND
def test_outputs_and_size(files, kind):
    """Near those of float32, on images that the calibration did not see; a wrong scale of one layer would show."""
    whole, small = files[kind]
    assert open_exported(small).record == dataclasses.replace(open_exported(whole).record, precision='int8')
    run_whole, run_small = (open_exported(file).run for file in (whole, small))
    batch = np.concatenate(images(8, seed=1))
    error = relative_error(run_small(batch)['logits'], run_whole(batch)['logits'])
    assert 1e-4 < error < .1
    batch = np.random.default_rng(2).uniform(0, 255, (1, 3, 41, 96)).astype(np.float32)  # another size
    assert run_small(batch)['logits'].shape == (1, 10)


def test_layers_of_onnx(files):
    """Each layer computes in int8, with a scale for each channel of its weights."""
    whole, small = files['onnx']
    graph = onnx.load(small).graph
    made_by = {name: node for node in graph.node for name in node.output}
    sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ('Conv', 'Gemm', 'MatMul')]
    assert len(layers) == 1 + 4 * 5 + 3 + 1  # patches, blocks, mergings, head
    for layer in layers:
        x, weight = (made_by[name] for name in layer.input[:2])
        assert x.op_type == weight.op_type == 'DequantizeLinear', layer.name
        assert kinds[weight.input[0]] == onnx.TensorProto.INT8
        shape = sizes[weight.input[0]]
        assert list(sizes[weight.input[1]]) in ([shape[0]], [shape[1]]) and sizes[weight.input[1]][0] > 1, layer.name
    assert small.stat().st_size < .45 * whole.stat().st_size


def test_layers_of_openvino(files):
    whole, small = files['openvino']
    layers, scales = 0, []
    for node in openvino.Core().read_model(small).get_ops():
        if 'Convolution' in node.get_type_name() or node.get_type_name() == 'MatMul':
            layers += 1
            assert _chain(node.input_value(0), 'FakeQuantize'), node.get_friendly_name()
            assert _chain(node.input_value(1), 'Constant').get_element_type() == openvino.Type.i8
            scales.append(np.prod(_scale(node.input_value(1)).shape))
    assert layers == 1 + 4 * 5 + 3 + 1 and min(scales) > 1
    assert small.with_suffix('.bin').stat().st_size < .35 * whole.with_suffix('.bin').stat().st_size


def _chain(value, kind: str):
    """The nearest node of a kind, upstream by the first inputs."""
    node = value.get_node()
    while node.get_type_name() != kind and node.inputs():
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == kind else None


def test_the_norms_of_openvino_stay_float(files):
    """A variance in int8 could round to 0. The norms of the mergings are plain operators; the quantiser leaves them."""
    model = openvino.Core().read_model(files['openvino'][1])
    roots = [node for node in model.get_ops() if node.get_type_name() in ('Sqrt', 'Power', 'ReduceMean', 'Subtract')]
    assert len([node for node in roots if node.get_type_name() == 'Sqrt']) >= 3
    for node in roots:
        kinds = {value.get_node().get_type_name() for value in node.input_values()}
        assert 'FakeQuantize' not in kinds, node.get_friendly_name()


def test_trials_of_openvino_calibrate_on_fewer_images(files):
    source = quantiser(files['openvino'][0], images(40))
    assert len(source.for_trials().images) == 32 and source.for_trials().layers == source.layers


def _scale(value) -> np.ndarray:
    return _chain(value, 'Multiply').input_value(1).get_node().data


def test_layers_that_stay_float(files, tmp_path):
    """A file holds in int8 just the layers that are asked for."""
    whole, _ = files['onnx']
    source = quantiser(whole, images(4))
    layers = [name for name in source.layers if 'conv' in name.lower()][:2]
    source.write(tmp_path / 'two.onnx', layers)
    graph = onnx.load(tmp_path / 'two.onnx').graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    quantised = {node.name for node in graph.node if made_by.get((*node.input, '', '')[1]) == 'DequantizeLinear'}
    assert quantised == {*layers}


# --- The search for layers -------------------------------------------------------------------------------


class Fake(Quantiser):
    """A quantiser of a file whose outputs change by the number of each layer, if that layer is in int8."""

    def __init__(self, path):
        super().__init__(path, [np.zeros((1, 3, 8, 8), np.float32)])
        self.layers = [f'layer{i}' for i in range(8)]

    def write(self, out, layers):
        out.write_text(' '.join(layers))


class FakeRun:

    def __init__(self, path):
        self.layers = path.read_text().split()

    def run(self, images):
        return {'logits': np.array([100., sum(int(layer[-1]) for layer in self.layers)])}


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Fake:
    (tmp_path / 'float32.onnx').write_text('')
    monkeypatch.setattr(kept_layers, 'open_exported', FakeRun)
    return Fake(tmp_path / 'float32.onnx')


def score(*bad: str):
    """Two scores, of which one falls by 2 points for each of the bad layers that is in int8."""
    return lambda file: {'top-1': 90., 'top-5': 99. - 2 * len({*bad} & {*file.read_text().split()})}


@pytest.mark.parametrize('bad, kept', [
    ([], []), (['layer7'], ['layer7']), (['layer6'], ['layer7', 'layer6']),
    (['layer4', 'layer7'], ['layer7', 'layer6', 'layer5', 'layer4'])])
def test_the_most_sensitive_layers_stay_float(fake, tmp_path, bad, kept):
    before, after, found = hold_score(fake, tmp_path / 'int8.onnx', score(*bad), .5)
    assert before == after == {'top-1': 90., 'top-5': 99.} and found == kept
    assert {*(tmp_path / 'int8.onnx').read_text().split()} == {*fake.layers} - {*kept}


def test_a_score_that_falls_is_refused(fake, tmp_path):
    with pytest.raises(UserError, match=r'2\.00 points less than float32, even with the 4 most sensitive of 8 layers'):
        hold_score(fake, tmp_path / 'int8.onnx', score('layer0'), .5)
    assert hold_score(fake, tmp_path / 'int8.onnx', score('layer0'), 2.)[2] == []  # unless it is accepted
    with pytest.raises(UserError, match='nan points'):
        hold_score(fake, tmp_path / 'int8.onnx', lambda file: {'box AP': float('nan')}, .5)


@pytest.mark.parametrize('ours, change', [([.9, .5], 0.), ([.9], .25 / 1.06), ([.9, .5, .5], .25 / 1.06)])
def test_objects_are_compared_by_their_scores(ours, change):
    outputs = {'scores': np.array([.9, .5]), 'boxes': np.zeros((2, 4))}
    assert kept_layers._change({'scores': np.array(ours), 'boxes': np.ones((len(ours), 4))}, outputs) \
        == pytest.approx(change)


# --- The command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('options, message', [
    (['--max-drop', '1'], '--max-drop is for --int8'), (['--calibration', '9'], '--calibration is for --int8'),
    (['--int8', '--to', 'torch'], '--int8 is for --to onnx and --to openvino'),
    (['--int8', '--half'], '--int8 and --half exclude each other'),
    (['--int8', '--backbone'], 'a backbone has no score'),
    (['--int8', '--calibration', '0'], '--calibration must be 1 image or more, got 0'),
    (['--int8', '--max-drop', '-1'], '--max-drop must be 0 points or more, got -1'),
    (['--int8', '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'], 'nowhere')])
def test_wrong_options(options, message, tmp_path):
    done = run_tool('tools/export.py', CLASSIFICATION, '--out', tmp_path / 'out.onnx', *options)
    assert done.returncode and message in done.stderr and not list(tmp_path.iterdir())


def test_files_that_cannot_be_quantised(files, tmp_path):
    whole, small = files['onnx']
    with pytest.raises(UserError, match='without images'):
        quantise(whole, [], tmp_path / 'out.onnx')
    with pytest.raises(UserError, match='is in int8; quantise the float32 file'):
        quantise(small, images(1), tmp_path / 'out.onnx')
    with pytest.raises(UserError, match=r'is a \.onnx file, too'):
        quantise(whole, images(1), tmp_path / 'out.xml')
    with pytest.raises(UserError, match='missing'):
        quantise(tmp_path / 'none.xml', images(1), tmp_path / 'out.xml')


@pytest.mark.long
@EACH_KIND
@pytest.mark.parametrize('config, epochs, names', [
    (CLASSIFICATION, 3, ['top-1']),
    ('configs/segmentation/upernet_dwnet-nano_digits.py', 2, ['mIoU']),
    ('configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py', 2, ['box AP', 'mask AP'])])
def test_digits(config, epochs, names, kind, tmp_path):
    """The command, on models that were trained for a short time: scores that hold, and a file that the tools test."""
    short = ['--cfg-options', f'train_cfg.max_epochs={epochs}', 'train_cfg.val_interval=100']
    assert not run_tool('tools/train.py', config, '--work-dir', tmp_path, *short).returncode
    out = tmp_path / f'int8{SUFFIXES[kind]}'
    done = run_tool('tools/export.py', config, tmp_path / f'epoch_{epochs}.pth', '--to', kind, '--int8', '--out', out)
    assert not done.returncode, done.stderr
    for name in names:
        line = next(line for line in done.stdout.splitlines() if name in line)
        assert float(line.split('points')[0].split()[-1]) >= -_int8.MAX_DROP
    assert open_exported(out).record.precision == 'int8'


@pytest.mark.long
def test_quantising_reports_to_nobody(files, tmp_path):
    """In a process of its own, because NNCF reports nothing under pytest."""
    (graph, _), (whole, _) = files['onnx'], files['openvino']
    script = f'''
import socket, numpy, pathlib
asked = []
socket.getaddrinfo = lambda *arguments, **more: asked.append(arguments) or []
from dwnet.deploy.export import _convert_to_openvino
from dwnet.deploy.quantise import quantise
from dwnet.deploy.runtimes import open_exported
_convert_to_openvino(pathlib.Path({str(graph)!r}), pathlib.Path('float32.xml'), open_exported({str(graph)!r}).record)
quantise(pathlib.Path({str(whole)!r}), [numpy.zeros((1, 3, 64, 64), 'float32')], pathlib.Path('int8.xml'))
import nncf.telemetry
print(asked, nncf.telemetry.telemetry._impl.consent)
'''
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', script], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.stdout.split('\n')[-2] == '[] False', done.stdout + done.stderr
