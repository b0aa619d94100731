"""Dynamic kernels in ONNX files, in the form for each runtime, against the plain formula."""
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from dwnet.deploy.onnx_operators import translations
from dwnet.deploy.openvino_operators import unroll_batches
from dwnet.deploy.runtimes import openvino_core
from dwnet.ops import dynamic_depthwise_conv2d, operators_kept, reference


class Dynamic(nn.Module):
    """Kernels that differ between images, with a bias and a ReLU."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.predict = nn.Linear(channels, channels * size**2)
        self.bias = nn.Parameter(torch.randn(channels))
        self.size = size

    def kernels(self, x: Tensor) -> Tensor:
        return self.predict(x.mean((2, 3))).view(-1, x.shape[1], self.size, self.size)

    def forward(self, x: Tensor) -> Tensor:
        return dynamic_depthwise_conv2d(x, self.kernels(x), self.bias, relu=True)


def run(runtime: str, file: Path, images: np.ndarray) -> np.ndarray:
    if runtime == 'onnxruntime':
        session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
        return session.run(None, {'image': images})[0]
    model = openvino.convert_model(file)
    if runtime == 'openvino, unrolled':
        assert unroll_batches(model) == 0  # any batch: as it was
        model.reshape([len(images), *images.shape[1:]] if images.shape[3] == 14 else [len(images), 4, -1, -1])
        assert unroll_batches(model) == 1
        assert 'TensorIterator' not in {node.get_type_name() for node in model.get_ops()}
    return openvino_core().compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})([images])[0]


@pytest.mark.parametrize('size', [3, 7])
@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino', 'openvino, unrolled'])
def test_agrees_with_the_formula_at_any_batch_and_size(runtime, size, tmp_path):
    torch.manual_seed(size)
    module, file = Dynamic(4, size).eval(), tmp_path / 'dynamic.onnx'
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    with torch.no_grad(), operators_kept():
        program = torch.export.export(module, (torch.randn(2, 4, 15, 18), ), dynamic_shapes=(dynamic, ))
    torch.onnx.export(program, dynamo=True, input_names=['image'],
                      custom_translation_table=translations(runtime.split(',')[0])).save(file)
    for shape in ((1, 4, 14, 14), (1, 4, 41, 96), (3, 4, 9, 11), (2, 4, 2, 3)):
        x = torch.randn(shape)
        with torch.no_grad():
            expected = reference.dynamic_depthwise_conv2d(x, module.kernels(x), module.bias).relu()
        np.testing.assert_allclose(run(runtime, file, x.numpy()), expected, rtol=1e-4, atol=1e-5)


def test_without_the_context_a_program_has_stock_operators():
    module = Dynamic(4, 3).eval()
    dynamic = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, )
    with torch.no_grad():
        program = torch.export.export(module, (torch.randn(2, 4, 15, 18), ), dynamic_shapes=dynamic)
    assert 'dwnet' not in str(program.graph)
    x = torch.randn(3, 4, 10, 12)
    torch.testing.assert_close(program.module()(x), module(x))
