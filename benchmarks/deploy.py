"""Compares models in the runtimes of a CPU: images a second, memory and start-up time, in each precision.

Each model, runtime and precision has a process of its own. The processes take turns, one at work while the others wait,
and so does one large matrix product, the measure of what the machine could do. ``tools/benchmark.py --mode deploy``
calls :func:`compare`.
"""
import argparse
import contextlib
import copy
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import openvino
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from dwnet.deploy.export import OPSET
from dwnet.deploy.onnx_operators import translations
from dwnet.deploy.openvino_operators import unroll_batches
from dwnet.deploy.quantise import quantise
from dwnet.deploy.record import Record
from dwnet.errors import UserError
from dwnet.models import DWNet
from dwnet.models.layers import as_convolutions
from dwnet.ops import operators_kept

WORKER = Path(__file__).with_name('deploy_worker.py')
PRODUCT, SIDE = 'matrix product', 2048
CALIBRATION = 4  # random images; the weights are random, too
# The largest error of the outputs, as norms relative to PyTorch in float32. int8 has to be no nonsense: it is scored on
# trained models elsewhere.
TOLERANCE = dict(float32=1e-4, bfloat16=.1, int8=.5)
# onnxruntime has no products in bfloat16 on CPUs, and PyTorch no int8 of the whole network
DTYPES = dict(torch=('float32', 'bfloat16'), onnxruntime=('float32', 'int8'), openvino=('float32', 'bfloat16', 'int8'))


@dataclass
class Contestant:
    """A model in a runtime and a precision."""
    model: str
    runtime: str
    dtype: str
    compiled: bool = False
    times: dict[int, list[float]] = field(default_factory=dict)  # batch → seconds of each round
    start_s: float = 0.
    peak_mib: float = 0.
    error: float = 0.

    def __str__(self) -> str:
        return ' '.join([self.model, self.runtime, *['compiled'] * self.compiled, self.dtype])


def compare(args: argparse.Namespace, build: Callable[[str], nn.Module], multiply_adds: Callable[[str], float],
            after_round: Callable[[dict], None]) -> dict:
    """The record of a comparison.

    Args:
        args: ``models``, ``runtime``, ``dtype``, ``batches``, ``threads``, ``size``, ``rounds``, ``compile``.
        build: Name → the model in float32, in eval mode.
        multiply_adds: Name → those of one image.
        after_round: Gets the record of the rounds so far.
    """
    with tempfile.TemporaryDirectory(prefix='dwnet-deploy-') as folder, contextlib.ExitStack() as stack:
        pairs = []
        for name in [*args.models, PRODUCT]:
            for c, specification in _contestants(name, args, build, Path(folder, name.replace(' ', '-'))):
                try:  # a worker's output is checked here, before anything is timed
                    pairs.append((c, stack.enter_context(_worker(c, specification, args))))
                except UserError as error:
                    print(error, flush=True)
        contestants = [c for c, _ in pairs]
        operations = {name: SIDE**2 if name == PRODUCT else multiply_adds(name) for name in [*args.models, PRODUCT]}
        repeats: dict[tuple[str, int], int] = {}
        for turn in range(args.rounds + 1):
            for c, ask in pairs:
                for batch in _batches(c, args):
                    if turn == 0:  # warms up, and counts how many runs make half a second
                        ask(batch, 1)
                        repeats[str(c), batch] = max(1, round(.5 / ask(batch, 1)))
                    else:
                        c.times.setdefault(batch, []).append(ask(batch, repeats[str(c), batch]))
            if turn:
                result = _rows(contestants, operations, args)
                after_round(result)
    return result


def _batches(c: Contestant, args: argparse.Namespace) -> list[int]:
    return [SIDE] if c.model == PRODUCT else args.batches


# --- the files -------------------------------------------------------------------------------------------


def _contestants(name: str, args: argparse.Namespace, build: Callable[[str], nn.Module],
                 folder: Path) -> Iterator[tuple[Contestant, dict]]:
    """A model's files, as they are written: what a worker has to know of each."""
    print(f'{name}: writing files', flush=True)
    folder.mkdir()
    model = nn.Linear(SIDE, SIDE, bias=False).eval() if name == PRODUCT else build(name)
    shape = (SIDE, SIDE) if name == PRODUCT else (max(CALIBRATION, *args.batches), 3, args.size, args.size)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    np.save(folder / 'images.npy', images)
    with torch.inference_mode():
        np.save(folder / 'expected.npy', model(torch.from_numpy(images[:1])).numpy())
    if isinstance(model, DWNet):
        model.switch_to_deploy()
    write = partial(_write, cache(partial(_record, model, images)), folder)
    for runtime in args.runtime:
        for dtype in args.dtype:
            if dtype not in DTYPES[runtime]:
                print(f'{name}: {runtime} has no {dtype} on a CPU', flush=True)
                continue
            if runtime == 'torch':
                file = folder / f'{dtype}.pt'
                torch.save(_in_its_best_form(copy.deepcopy(model), name).to(getattr(torch, dtype)), file)
            elif dtype == 'int8':
                floats = write(runtime)
                file = floats.with_stem(f'{runtime}-int8')
                try:
                    quantise(floats, [image[None] for image in images[:CALIBRATION]], file)
                except UserError as error:
                    print(error, flush=True)
                    continue
            else:
                file = write(runtime)
            compiles = runtime == 'torch' and args.compile and dtype == 'float32' and name != PRODUCT
            for compiled in (False, True) if compiles else (False, ):
                files = dict.fromkeys([1, *([SIDE] if name == PRODUCT else args.batches)], str(file))
                if runtime == 'openvino':
                    files = {batch: str(_for_one_batch(file, [batch, *shape[1:]])) for batch in files}
                yield Contestant(name, runtime, dtype, compiled), dict(
                    runtime=runtime, files=files, dtype=dtype, compiled=compiled, threads=args.threads,
                    channels_last=_is_channels_last(model, name), fused_attention='swin' in name,
                    images=str(folder / 'images.npy'), outputs=str(folder / f'{runtime}-{dtype}-{compiled}.npy'))


def _is_channels_last(model: nn.Module, name: str) -> bool:
    return isinstance(model, DWNet) or 'convnext' in name


def _in_its_best_form(model: nn.Module, name: str) -> nn.Module:
    return model.to(memory_format=torch.channels_last) if _is_channels_last(model, name) else model


def _record(model: nn.Module, images: np.ndarray) -> ExportedProgram:
    """The graph for any batch; the size of the images, (B, …), is fixed, as timm's Swin has it."""
    model = copy.deepcopy(model)
    as_convolutions(model)
    for module in model.modules():
        if hasattr(module, 'fused_attn'):  # timm's; the exporter cannot translate the fused operator for any batch
            module.fused_attn = False
    with torch.no_grad(), warnings.catch_warnings(), operators_kept():
        warnings.simplefilter('ignore')
        return torch.export.export(model, (torch.from_numpy(images[:2]), ), dynamic_shapes=({0: Dim.DYNAMIC}, ))


def _write(record_graph: Callable[[], ExportedProgram], folder: Path, runtime: str) -> Path:
    """The .onnx or .xml file in float32; one that is there is kept."""
    file = folder / f'{runtime}.onnx'
    kept = file if runtime == 'onnxruntime' else file.with_suffix('.xml')
    if kept.is_file():
        return kept
    program, record = record_graph(), Record('features', outputs={'logits': 'before the softmax'})
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        written = torch.onnx.export(program, dynamo=True, input_names=['image'], output_names=['logits'],
                                    opset_version=OPSET, custom_translation_table=translations(runtime)).model_proto
    onnx.helper.set_model_props(written, record.entries())
    onnx.save(written, file)
    if kept != file:
        converted = openvino.convert_model(file)
        for key, text in record.entries().items():
            converted.set_rt_info(text, key)
        openvino.save_model(converted, kept, compress_to_fp16=False)
    return kept


def _for_one_batch(file: Path, shape: list[int]) -> Path:
    """The .xml file for images of one shape, in which predicted kernels need no loop over the images."""
    kept = file.with_stem(f'{file.stem}-{shape[0]}')
    if kept.is_file():  # a worker may have it open
        return kept
    model = openvino.Core().read_model(file)
    model.reshape(shape)
    unroll_batches(model)
    openvino.save_model(model, kept, compress_to_fp16=False)
    return kept


# --- the processes ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _worker(c: Contestant, specification: dict, args: argparse.Namespace) -> Iterator[Callable[[int, int], float]]:
    """Starts a contestant's process, checks its output, and gives what asks the process for the time of a run."""
    print(f'{c}: starting', flush=True)
    command = [sys.executable, '-W', 'ignore', str(WORKER), json.dumps(specification)]
    environment = {**os.environ, 'OMP_NUM_THREADS': str(args.threads), 'TORCHINDUCTOR_COMPILE_THREADS': '1'}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def answer() -> dict:
        for line in process.stdout:
            if line.startswith('@'):
                return json.loads(line[1:])
        raise UserError(f'{c} ended with status {process.wait()}')

    def ask(batch: int, repeats: int) -> float:
        process.stdin.write(json.dumps(dict(batch=batch, repeats=repeats)) + '\n')
        process.stdin.flush()
        said = answer()
        c.peak_mib = said['peak_mib']
        return said['s']

    try:
        c.start_s = answer()['start_s']
        outputs = Path(specification['outputs'])
        given, expected = np.load(outputs), np.load(outputs.with_name('expected.npy'))
        c.error = float(np.linalg.norm(given - expected) / np.linalg.norm(expected))
        if not c.error <= TOLERANCE[c.dtype]:
            raise UserError(f'{c} differs from PyTorch in float32 by {c.error:.1e}, so it is not measured')
        yield ask
    finally:
        process.kill()
        process.wait()


# --- the record ------------------------------------------------------------------------------------------


def _rows(contestants: list[Contestant], operations: dict[str, float], args: argparse.Namespace) -> dict:
    """The medians of each contestant and batch; ratios are medians of the ratios within a round."""
    rates = {(str(c), batch): [batch / t for t in times] for c in contestants for batch, times in c.times.items()}
    products = [c for c in contestants if c.model == PRODUCT]
    limits = {str(c): statistics.median(rates[str(c), SIDE]) * SIDE**2 / 1e12 for c in products}  # tera multiply-adds

    def ratio(c: Contestant, batch: int, others: list[Contestant]) -> float | None:
        others = [other for other in others if (str(other), batch) in rates]
        if not others:
            return None
        best = max(others, key=lambda other: statistics.median(rates[str(other), batch]))
        return statistics.median(a / b for a, b in zip(rates[str(c), batch], rates[str(best), batch]))

    rows = []
    for c in contestants:
        for batch in c.times if c.model != PRODUCT else ():
            values = rates[str(c), batch]
            limit = max((limits[str(p)] for p in products if p.dtype == c.dtype), default=None)
            own = [o for o in contestants if (o.model, o.runtime, o.dtype) == (c.model, c.runtime, 'float32')]
            swin = [o for o in contestants if (o.model, o.dtype) == ('swin_tiny', c.dtype)]
            static = [o for o in contestants if f'dynamic_{o.model}' == c.model
                      and (o.runtime, o.dtype, o.compiled) == (c.runtime, c.dtype, c.compiled)]
            rows.append(dict(
                model=c.model, runtime=c.runtime, dtype=c.dtype, compiled=c.compiled, batch=batch,
                images_s=statistics.median(values), low=min(values), high=max(values),
                own_float32=ratio(c, batch, own), swin=ratio(c, batch, swin), static=ratio(c, batch, static),
                matrix_rate=limit and statistics.median(values) * operations[c.model] / 1e12 / limit,
                peak_mib=c.peak_mib, start_s=c.start_s, error=c.error))
    return dict(deploy=rows, tera_macs=limits)


HEADINGS = ['model', 'runtime', 'precision', 'batch', 'images/s', 'lowest – highest', '× own float32', '× Swin-T',
            '× static', 'of the matrix rate', 'peak MiB', 'start s', 'error']


def cells(row: dict) -> list[str]:
    """A row of the record as the columns of ``HEADINGS``."""
    def number(key: str, form: str = '.2f') -> str:
        return '' if row[key] is None else format(row[key], form)

    return [row['model'], row['runtime'] + ' compiled' * row['compiled'], row['dtype'], str(row['batch']),
            number('images_s', '.1f'), f"{row['low']:.1f} – {row['high']:.1f}", number('own_float32'), number('swin'),
            number('static'), number('matrix_rate', '.0%'), number('peak_mib', '.0f'), number('start_s', '.1f'),
            number('error', '.0e')]


def best_headings(rows: list[dict]) -> list[str]:
    batches = sorted({row['batch'] for row in rows})
    return ['model', 'precision', *(text for batch in batches for text in (f'images/s, batch {batch}', 'by')),
            '× Swin-T', 'of the matrix rate']


def best(rows: list[dict]) -> list[list[str]]:
    """Each model and precision in its fastest runtime; the last two columns are of the largest batch."""
    table = []
    for model, dtype in dict.fromkeys((row['model'], row['dtype']) for row in rows):
        own = [row for row in rows if (row['model'], row['dtype']) == (model, dtype)]
        fastest = [max((row for row in own if row['batch'] == batch), key=lambda row: row['images_s'])
                   for batch in sorted({row['batch'] for row in own})]
        last = cells(fastest[-1])
        table.append([model, dtype, *(cell for row in fastest for cell in (cells(row)[4], cells(row)[1])),
                      last[HEADINGS.index('× Swin-T')], last[HEADINGS.index('of the matrix rate')]])
    return table
