"""Writes models as files that run without this project, for any image size, and compares them with PyTorch.

A file takes RGB images, (B, 3, H, W), float32 of 0 to 255, or what else the model is trained on, and normalises them
itself. ``torch.export`` records the graph, in which :mod:`dwnet.ops` uses stock operators; PyTorch's ONNX exporter
translates the graph; OpenVINO converts the ONNX file. :mod:`dwnet.deploy.record` says what a file says of itself.
"""
import contextlib
import copy
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dwnet.errors import UserError, not_among, one_line, requires
from dwnet.models import DWNet
from dwnet.models.deploy import switch_to_deploy
from dwnet.models.layers import as_convolutions
from dwnet.ops import operators_kept
from dwnet.toolboxes import toolbox_of_model
from dwnet.toolboxes.graphs import Backbone

from .comparison import compare
from .openvino_operators import unroll_batches
from .record import Record
from .runtimes import open_exported, reports_to_nobody
from .trial_images import as_input, of_data, photographs

OPSET = 20  # the first with GELU as one operator
SUFFIXES = dict(onnx='.onnx', openvino='.xml', torch='.pt2')
TOLERANCE = 1e-4  # relative to the largest value of an output, or to 1 if that is larger
# Weights rounded to float16 are off by 2^-11 at most; the errors of some dozen layers add up.
HALF_TOLERANCE = 2e-2
IMAGES = 3  # of the config's data


def export(model: nn.Module, path: str | os.PathLike, to: str = 'onnx', backbone_only: bool = False,
           half: bool = False, images: Sequence[Tensor] | None = None) -> Path:
    """Writes a model as a file, and compares the file's outputs with PyTorch's.

    Args:
        model: A classifier, segmentor or detector of :func:`dwnet.apis.init_model`, on the CPU. The model is not
            changed; the file holds the model in eval mode.
        path: The file. Its input is ``image``, (B, 3, H, W), RGB of 0 to 255 as float32; for a model of images that are
            not 8-bit colour, (B, C, H, W) with the channels and values of the images' files. Its outputs are those of
            :data:`dwnet.deploy.record.MEANINGS`, or ``logits``, or for a backbone ``stride4`` … ``stride32``.
        to: ``'onnx'``, a file named .onnx; ``'openvino'``, .xml with a .bin beside it; ``'torch'``, .pt2.
        backbone_only: Leave out neck and heads.
        half: Store the weights in float16; inputs, outputs and the computation stay as they are. Not for ``'torch'``.
        images: Images on which the file is compared, (C, H, W) as the test pipeline gives them: colours are BGR. By
            default some of the config's test data, if they can be read. Photographs of three sizes are added.

    Returns:
        The path.

    Raises:
        UserError: If a part of the model cannot be exported, the outputs differ by more than 1e-4 of the largest value
            (with ``half`` by 2e-2, or other objects are found), or the file cannot be written. No file is left then.

    Example:
        >>> from dwnet.apis import init_model
        >>> from dwnet.deploy.export import export
        >>> export(init_model('configs/classification/dwnet-tiny_in1k.py'), 'dwnet-tiny.onnx')
    """
    path = Path(path)
    _check(path, to, half)
    reference = copy.deepcopy(model).eval()
    model = copy.deepcopy(reference)
    if any(isinstance(module, DWNet) for module in model.modules()):
        switch_to_deploy(model)
        if to != 'torch':
            as_convolutions(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='.export-', dir=path.parent) as folder:
            graph = (Backbone(model) if backbone_only else toolbox_of_model(model).graph(model)).eval()
            record = Record.of(reference, graph, 'float16' if half else 'float32')
            pictures = _of_data(reference) if images is None else images
            batches = [[picture] for picture in pictures] + photographs(reference, graph)
            tolerance = HALF_TOLERANCE if half else TOLERANCE
            unfinished, trial = (Path(folder, name, path.name) for name in ('unfinished', 'trial'))
            run = _write(graph, unfinished, to, record, batches[-1])
            if not compare(run, graph, reference, batches, tolerance, half):  # no boxes to compare: lower the threshold
                print_log('the model finds nothing on the images; trying a lower score threshold', 'current')
                graph.find_more(reference, [batch[0] for batch in batches])
                run = _write(graph, trial, to, record, batches[-1])
                if not compare(run, graph, reference, batches, tolerance, half):
                    raise UserError(f'{type(reference).__name__} finds nothing on photographs at any threshold, so the '
                                    'file cannot be compared; check the weights')
            for file in unfinished.parent.iterdir():  # OpenVINO's weights are a second file
                os.replace(file, path.with_name(file.name))
        return path
    except UserError:
        raise
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or one_line(error)}') from error
    except Exception as error:  # a head that cannot be recorded may raise anything
        raise UserError(f'{type(reference).__name__} cannot be exported ({one_line(error)[:300]}); its backbone alone '
                        'can, by --backbone') from error


def _check(path: Path, to: str, half: bool) -> None:
    if to not in SUFFIXES:
        raise UserError(not_among('to', to, SUFFIXES))
    if path.suffix != SUFFIXES[to]:
        raise UserError(f'{path}: the name of a file for {to} ends with {SUFFIXES[to]}')
    if half and to == 'torch':
        raise UserError('float16 weights are for onnx and openvino; for PyTorch call .half() on what torch.export.load '
                        'returns')


def _of_data(model: nn.Module) -> list[Tensor]:
    """Some of the test images of a model's config; none if there is no such data."""
    try:
        return of_data(model.cfg, 'test', IMAGES)
    except Exception as error:  # data that is missing or broken; the photographs remain
        print_log(f'the images of the config cannot be read ({one_line(error)[:200]}): the file is compared on '
                  'photographs alone', 'current')
        return []


def _write(graph: nn.Module, path: Path, to: str, record: Record,
           pictures: list[Tensor]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Writes a graph, and returns what runs the file."""
    path.parent.mkdir()
    print_log('recording the graph …', 'current')
    images = as_input(pictures[:getattr(graph, 'batch', None) or 2])
    if to == 'torch':
        program = _record(graph, images)
        torch.export.save(program, path, extra_files=record.entries())
        module = torch.export.load(path).module()
        return lambda images: _named(graph, module(torch.from_numpy(images)))
    with operators_kept():
        program = _record(graph, images)
    print_log('translating the graph to ONNX …', 'current')
    file = path.with_suffix('.onnx')
    _write_onnx(program, graph, file, record, 'onnxruntime' if to == 'onnx' else 'openvino')
    if to == 'openvino':
        _convert_to_openvino(file, path, record)
        file.unlink()
    print_log('comparing the file with PyTorch …', 'current')
    return open_exported(path).run


def _record(graph: nn.Module, images: Tensor) -> ExportedProgram:
    """The graph for any size and, if it takes several images, any batch."""
    dynamic = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC} | ({} if len(images) == 1 else {0: Dim.DYNAMIC})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.export.export(graph, (images, ), dynamic_shapes=(dynamic, ), strict=False)


def _named(graph: nn.Module, outputs: Tensor | Sequence[Tensor]) -> dict[str, np.ndarray]:
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    return {name: output.detach().numpy() for name, output in zip(graph.axes, outputs, strict=True)}


# --- ONNX and OpenVINO ---------------------------------------------------------------------------------


def _write_onnx(program: ExportedProgram, graph: nn.Module, path: Path, record: Record, runtime: str) -> None:
    with requires('onnx', 'export', 'writing ONNX'):
        import onnx
    with requires('onnxscript', 'export', 'writing ONNX'):
        from .onnx_operators import translations
    with (warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()),
          _errors_alone('torch.onnx', 'onnxscript')):
        warnings.simplefilter('ignore')
        written = torch.onnx.export(program, dynamo=True, input_names=['image'], output_names=list(graph.axes),
                                    opset_version=OPSET, custom_translation_table=translations(runtime))
    model = written.model_proto
    _name_axes(model.graph, graph)
    for part in _parts(model):  # the exporter notes the lines of Python that each node comes from
        part.ClearField('metadata_props'), part.ClearField('doc_string')
    if record.precision == 'float16':
        _store_in_half(model.graph)
    onnx.helper.set_model_props(model, record.entries())
    onnx.save(model, path)


@contextlib.contextmanager
def _errors_alone(*names: str) -> Iterator[None]:
    """Without what these loggers remark on their own workings, a line for each operator that they leave as it is."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _name_axes(model, graph: nn.Module) -> None:
    """Gives the dynamic dimensions of a GraphProto their names; shapes inside it speak of other names and go."""
    batch = {} if getattr(graph, 'batch', None) else {0: 'batch'}
    axes = {'image': batch | {2: 'height', 3: 'width'}} | graph.axes
    for value in (*model.input, *model.output):
        for place, name in axes[value.name].items():
            value.type.tensor_type.shape.dim[place].dim_param = name
    del model.value_info[:]


def _parts(model) -> Iterator:
    """All of a ModelProto that can hold remarks."""
    yield from (model, model.graph)
    for nodes in (model.graph, *model.functions):
        yield from (*nodes.node, *getattr(nodes, 'initializer', ()))
        yield nodes
    yield from (*model.graph.input, *model.graph.output)


def _store_in_half(graph) -> None:
    """Rounds the weights of a GraphProto to float16; a Cast makes float32 of them, once, when a runtime loads the file.
    """
    import onnx
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 64:
            name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f'{name}_half'))
            casts.append(onnx.helper.make_node('Cast', [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _convert_to_openvino(file: Path, path: Path, record: Record) -> None:
    with requires('openvino', 'export', 'writing a file for OpenVINO'):
        import openvino
    with reports_to_nobody():
        model = openvino.convert_model(file)
    unroll_batches(model)
    for key, text in record.entries().items():
        model.set_rt_info(text, key)
    openvino.save_model(model, path, compress_to_fp16=record.precision == 'float16')
