"""Writes int8 files of exported files by post-training quantisation: .onnx by onnxruntime, .xml by NNCF.

A layer is a convolution or a matrix product with weights in the file, or the sum of a convolution and another map, as
residual connections have it. Layers run in int8, with weights that have a scale for each channel. All else stays
float32: predicted kernels, norms, the decoding of boxes, NMS, coordinates. The graph's structure decides, not names.
"""
import dataclasses
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dwnet.errors import UserError, one_line, requires

from .record import KEY, Record
from .runtimes import openvino_core, reports_to_nobody, signal_stack_kept

TRIAL_IMAGES = 32  # for the trial of one layer; with 300 a trial takes ten times as long


class Quantiser(ABC):
    """Writes int8 files of one float32 file.

    Args:
        path: An .onnx or .xml file of :func:`dwnet.deploy.export.export`, in float32.
        images: The images for the calibration, each (1, C, H, W) in float32, as the file takes them.

    Attributes:
        layers: The names of the layers that can run in int8, in the graph's order.
    """
    layers: list[str]

    def __init__(self, path: Path, images: Sequence[np.ndarray]) -> None:
        self.path, self.images = path, images

    @abstractmethod
    def write(self, out: Path, layers: Collection[str]) -> None:
        """Writes the file with these layers in int8."""

    def for_trials(self) -> 'Quantiser':
        """A quantiser of the same file that writes fast, for trials of single layers."""
        return self

    def record_of(self, record: Record) -> Record:
        """The record of the int8 file of a file with this record."""
        return dataclasses.replace(record, precision='int8')


def quantiser(path: Path, images: Sequence[np.ndarray]) -> Quantiser:
    """The quantiser of a file.

    Raises:
        UserError: If there are no images, the file is of another kind or not in float32, or it cannot be read.
    """
    if not images:
        raise UserError(f'{path} cannot be quantised without images: their values decide the scales of the layers')
    kinds = {'.onnx': _OnnxQuantiser, '.xml': _OpenVinoQuantiser}
    if path.suffix not in kinds:
        raise UserError(f'{path}: files that can be quantised are {" and ".join(kinds)}')
    if not path.is_file():
        raise UserError(f'{path} is missing')
    return kinds[path.suffix](path, images)


def quantise(path: Path, images: Sequence[np.ndarray], out: Path) -> Path:
    """Writes the int8 file of a float32 file, with all layers in int8; nothing is scored.

    Args:
        path: An .onnx or .xml file of :func:`dwnet.deploy.export.export`, in float32.
        images: Images as the file takes them, each (1, C, H, W) in float32; some hundred of the training data.
        out: The file to write, of the same kind.

    Returns:
        ``out``.

    Raises:
        UserError: See :func:`quantiser`; or if the file cannot be quantised.
    """
    if out.suffix != path.suffix:
        raise UserError(f'{out}: the int8 file of {path.name} is a {path.suffix} file, too')
    source = quantiser(path, images)
    source.write(out, source.layers)
    return out


def _float32_record(text: str | None, path: Path) -> Record:
    record = Record.from_json(text or '', str(path))
    if record.precision != 'float32':
        raise UserError(f'{path} is in {record.precision}; quantise the float32 file')
    return record


# --- ONNX ------------------------------------------------------------------------------------------------


class _OnnxQuantiser(Quantiser):
    """Q/DQ nodes in front of and behind each layer, which onnxruntime and TensorRT fuse."""

    def __init__(self, path: Path, images: Sequence[np.ndarray]) -> None:
        super().__init__(path, images)
        with requires('onnxruntime', 'export', 'quantising'), requires('onnx', 'export', 'quantising'):
            import onnx
            import onnxruntime.quantization as ort
        entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        self._record = _float32_record(entries.get(KEY), path)
        self._folder = tempfile.TemporaryDirectory(prefix='dwnet-int8-')
        self._prepared = Path(self._folder.name, 'prepared.onnx')
        # weights that the exporter reshapes become weights, and all shapes that can be known
        ort.quant_pre_process(path, self._prepared, skip_symbolic_shape=True)
        graph = onnx.load(self._prepared).graph
        self.layers, self._activations = _onnx_layers(graph)
        self._ranges = Path(self._folder.name, 'ranges.json')

    def write(self, out: Path, layers: Collection[str]) -> None:
        import onnx
        import onnxruntime.quantization as ort
        try:
            ort.quantize_static(
                self._prepared, out, _Reader(self.images), per_channel=True, activation_type=ort.QuantType.QUInt8,
                # 7 bits: sums of products of 8 bits overflow on CPUs without VNNI
                weight_type=ort.QuantType.QInt8, reduce_range=True,
                nodes_to_quantize=[*layers, *self._activations],
                calibration_cache_path=self._ranges)
        except Exception as error:  # onnxruntime raises many kinds
            raise UserError(f'{self.path} cannot be quantised by onnxruntime: {one_line(error)[:300]}') from error
        model = onnx.load(out)
        onnx.helper.set_model_props(model, self.record_of(self._record).entries())
        onnx.save(model, out)


class _Reader:
    """What onnxruntime calibrates with."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {'image': image}


def _onnx_layers(graph: Any) -> tuple[list[str], list[str]]:
    """The layers of a GraphProto, and the ReLUs behind them, which become part of the layers' scales."""
    weights = {tensor.name for tensor in graph.initializer}
    layers: list[str] = []
    activations: list[str] = []
    maps: set[str] = set()  # outputs of convolutions
    for node in graph.node:
        if node.op_type in ('Conv', 'ConvTranspose', 'Gemm', 'MatMul') and node.input[1] in weights:
            layers.append(node.name)
            maps.update(node.output if node.op_type.startswith('Conv') else ())
        elif node.op_type == 'Relu' and node.input[0] in maps:
            activations.append(node.name)
            maps.update(node.output)
        elif node.op_type == 'Add' and maps & {*node.input} and not weights & {*node.input}:
            layers.append(node.name)
            maps.update(node.output)
    return layers, activations


# --- OpenVINO --------------------------------------------------------------------------------------------

# What NNCF quantises where it can
_ARITHMETIC = ('Convolution', 'GroupConvolution', 'ConvolutionBackpropData', 'GroupConvolutionBackpropData', 'MatMul',
               'Add', 'Subtract', 'Multiply', 'Divide', 'Power', 'Sqrt', 'ReduceMean', 'AvgPool', 'MVN')


class _OpenVinoQuantiser(Quantiser):
    """FakeQuantize nodes in front of each layer, and biases that make up for the mean error of each channel."""

    def __init__(self, path: Path, images: Sequence[np.ndarray]) -> None:
        super().__init__(path, images)
        with requires('openvino', 'export', 'quantising'):
            self._model = openvino_core().read_model(path)
        text = self._model.get_rt_info(KEY).astype(str) if self._model.has_rt_info(KEY) else None
        self._record = _float32_record(text, path)
        self.layers, self._others = _openvino_layers(self._model)

    def for_trials(self) -> Quantiser:
        """NNCF calibrates for each file anew, so one with fewer images."""
        return _OpenVinoQuantiser(self.path, self.images[:TRIAL_IMAGES])

    def write(self, out: Path, layers: Collection[str]) -> None:
        with requires('nncf', 'export', 'quantising'), reports_to_nobody():
            import nncf
        import openvino
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        nncf.set_log_level('ERROR')
        floats = [*self._others, *(layer for layer in self.layers if layer not in layers)]
        try:
            with signal_stack_kept():
                model = nncf.quantize(
                    self._model, nncf.Dataset([{'image': image} for image in self.images]),
                    subset_size=len(self.images), preset=nncf.QuantizationPreset.MIXED,
                    ignored_scope=nncf.IgnoredScope(names=floats, validate=False),
                    # 7 bits: sums of products of 8 bits overflow on CPUs without VNNI
                    advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE))
        except Exception as error:  # NNCF raises many kinds
            raise UserError(f'{self.path} cannot be quantised by NNCF: {one_line(error)[:300]}') from error
        for key, text in self.record_of(self._record).entries().items():
            model.set_rt_info(text, key)
        openvino.save_model(model, out, compress_to_fp16=False)


def _openvino_layers(model: Any) -> tuple[list[str], list[str]]:
    """The layers of an openvino.Model, and what else NNCF would quantise."""
    layers: list[str] = []
    others: list[str] = []
    maps: set[str] = set()  # outputs of convolutions, with their biases
    products: set[str] = set()  # and of matrix products, without them
    for node in model.get_ordered_ops():
        kind, name, inputs = node.get_type_name(), node.get_friendly_name(), node.input_values()
        sources = {value.get_node().get_friendly_name() for value in inputs}
        if kind == 'Relu' and maps & sources:
            maps.add(name)
        if kind not in _ARITHMETIC:
            continue
        if kind == 'Add' and maps & sources:
            maps.add(name)
            if not any(map(_is_constant, inputs)):
                layers.append(name)
        elif kind == 'MatMul' or 'Convolution' in kind:
            if _is_constant(inputs[1]):
                layers.append(name)
                (maps if 'Convolution' in kind else products).add(name)
            else:
                others.append(name)
        elif not (kind == 'Add' and products & sources and any(map(_is_constant, inputs))):  # a product's bias
            others.append(name)
    return layers, others


def _is_constant(value: Any) -> bool:
    """Whether an openvino.Output is a constant, or one in another shape."""
    node = value.get_node()
    while node.get_type_name() in ('Reshape', 'Unsqueeze', 'Squeeze', 'Transpose', 'Convert'):
        node = node.input_value(0).get_node()
    return node.get_type_name() == 'Constant'
