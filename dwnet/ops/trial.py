"""Trials that find the faster backend on this GPU, Triton's kernel or PyTorch's operator.

``backend='auto'`` asks :func:`choose`. The first call of each operator (forward or backward), dtype, memory format and
class of shapes runs both backends on random values, compares the results, and times them. Verdicts are kept in memory
and in the user's cache folder (``XDG_CACHE_HOME``, ``~/.cache``), one file for each GPU and version of torch, triton
and dwnet. A kernel that fails or is wrong is not used, and the log says so in one line.
"""
import contextlib
import functools
import json
import logging
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from dwnet.version import __version__

from . import torch_forms

# Largest allowed difference, relative to the largest value; cuDNN may compute PyTorch's float32 in TF32.
TOLERANCE = {torch.float32: 2e-3, torch.float16: 4e-3, torch.bfloat16: 2e-2}
TURNS, CALLS = 5, 10  # turns of each backend, calls in each turn


@dataclass(frozen=True)
class Verdict:
    """Result of a trial: the backend, why, and the milliseconds of both; no times if the kernel fails or is wrong."""
    backend: str
    reason: str
    ms: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_times(cls, torch: float, triton: float) -> 'Verdict':
        faster = triton < torch
        return cls('triton' if faster else 'torch', 'is faster' if faster else 'is not faster',
                   dict(torch=torch, triton=triton))


_tables: dict[str, dict[str, Verdict]] = {}  # environment → use → verdict


def choose(operator: Callable, *inputs: Any, may_try: bool) -> str:
    """The backend for ``operator(*inputs, backend)``: ``'torch'`` or ``'triton'``.

    Args:
        operator: Forward or backward pass of an operator; takes the backend's name as the last argument.
        inputs: Tensors and other arguments. The maps are the first tensor, the kernels the last that is no vector.
        may_try: Run a trial for a use that is not in the table. Without a trial PyTorch's operator runs, and so it
            does while a CUDA graph is captured.
    """
    tensors = [value for value in inputs if isinstance(value, Tensor) and value.dim() > 1]
    maps, environment, use = tensors[0], _environment(tensors[0].device), _use(operator, tensors[0], tensors[-1])
    table = _table(environment)
    if use not in table:
        if not may_try or torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return 'torch'
        table[use] = _try(operator, inputs, maps.device)
        if table[use].ms:
            _keep(environment)
        else:
            print_log(f"{use}: the Triton kernel {table[use].reason}, so PyTorch's operator runs", 'current',
                      logging.WARNING)
    return table[use].backend


def verdicts(device: torch.device | str) -> dict[str, Verdict]:
    """A verdict for each use that was tried on this device, in this process or an earlier one."""
    return dict(_table(_environment(torch.device(device))))


def _use(operator: Callable, maps: Tensor, kernels: Tensor) -> str:
    """A row of the table. Maps whose numbers of positions have equally many bits share a row."""
    layout = 'channels-last' if torch_forms.memory_format_of(maps) == torch.channels_last else 'contiguous'
    positions = (maps.numel() // max(1, maps.shape[1])).bit_length()
    sets = 'for each image' if len(kernels) > 1 else 'for all'
    return (f'{operator} {maps.dtype} {layout}, {maps.shape[1]} channels, kernels {tuple(kernels.shape[1:4])} {sets}, '
            f'{positions} bits of positions')


def _try(operator: Callable, inputs: tuple, device: torch.device) -> Verdict:
    """Runs both backends on random values in the memory format of the inputs."""
    try:
        random = torch.Generator(device).manual_seed(0)  # leaves the training's random numbers alone
        fresh = [torch.empty_like(v).normal_(generator=random) if isinstance(v, Tensor) else v for v in inputs]
        calls = {backend: functools.partial(operator, *fresh, backend) for backend in ('torch', 'triton')}
        if problem := _difference(calls['triton'](), calls['torch']()):
            return Verdict('torch', f'is wrong: {problem}')
        turns = [{backend: _milliseconds(call, device) for backend, call in calls.items()} for _ in range(TURNS)]
    except Exception as error:  # the compiler failed, or memory ran out: PyTorch's operator may still work
        first_line, *_ = [*str(error).strip().splitlines(), '']
        return Verdict('torch', f'fails ({type(error).__name__}: {first_line})')
    return Verdict.of_times(**{backend: statistics.median(turn[backend] for turn in turns) for backend in calls})


def _difference(ours: Tensor | tuple[Tensor, ...], theirs: Tensor | tuple[Tensor, ...]) -> str:
    """What is wrong with our results; empty if nothing is."""
    for a, b in zip(*((result, ) if isinstance(result, Tensor) else result for result in (ours, theirs)), strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f'it is {tuple(a.shape)} of {a.dtype}'
        largest, error = (t.abs().max().item() if t.numel() else 0. for t in (b, a - b))
        if not error <= TOLERANCE[a.dtype] * largest:  # true for NaN, too
            return f'it differs by {error:.1e} where the largest value is {largest:.1e}'
    return ''


def _milliseconds(call: Callable, device: torch.device) -> float:
    """Mean time of a call, launch included."""
    synchronise = functools.partial(torch.cuda.synchronize, device) if device.type == 'cuda' else lambda: None
    synchronise()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    synchronise()
    return (time.perf_counter() - start) / CALLS * 1e3


@functools.cache
def _environment(device: torch.device) -> str:
    import triton
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'interpreter'
    return f'{name}, torch {torch.__version__}, triton {triton.__version__}, dwnet {__version__}'


def _file(environment: str) -> Path:
    folder = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    return folder / 'dwnet' / f"{re.sub('[^A-Za-z0-9.+]+', '-', environment)}.json"


def _table(environment: str) -> dict[str, Verdict]:
    if environment not in _tables:
        _tables[environment] = _read(environment)
    return _tables[environment]


def _read(environment: str) -> dict[str, Verdict]:
    try:
        return {use: Verdict.of_times(float(ms['torch']), float(ms['triton']))
                for use, ms in json.loads(_file(environment).read_text()).items()}
    except Exception:  # the file is missing, unreadable, damaged or another program's: try again
        return {}


def _keep(environment: str) -> None:
    """Adds our times to the file, which other processes may have changed; the file is replaced in one step."""
    timed = {use: verdict.ms for use, verdict in {**_read(environment), **_table(environment)}.items() if verdict.ms}
    with contextlib.suppress(OSError, RuntimeError):  # read-only or no home folder: the next process tries again
        file = _file(environment)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile('w', dir=file.parent, delete=False) as new:
            json.dump(timed, new, indent=1)
        os.replace(new.name, file)
