"""Runs exported files: .onnx in onnxruntime, .xml in OpenVINO. Elsewhere nobody asks which runtime it is."""
import ctypes
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dwnet.errors import UserError, one_line, requires

from .record import KEY, Record

SUFFIXES = ('.onnx', '.xml')


class Exported(ABC):
    """An exported file that is ready to run.

    Attributes:
        path: The file.
        record: What the file says of itself.
        channels: Channels of the images.
        outputs: The names of the outputs.
    """
    path: Path
    record: Record
    channels: int
    outputs: list[str]

    @abstractmethod
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Output → array.

        Args:
            images: (B, C, H, W), float32; usually RGB of 0 to 255.
        """


def is_exported(path: str | os.PathLike | None) -> bool:
    """Whether the name is that of an exported file, and not of a checkpoint."""
    return path is not None and Path(path).suffix in SUFFIXES


def open_exported(path: str | os.PathLike, threads: int | None = None) -> Exported:
    """Opens an .onnx or .xml file on the CPU.

    Args:
        path: The file.
        threads: Threads of the runtime; its own choice by default.

    Raises:
        UserError: If the file is missing, is no such file, has no record, or its runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} is missing')
    kind = {'.onnx': _OnnxRuntime, '.xml': _OpenVino}.get(path.suffix)
    if kind is None:
        raise UserError(f'{path}: exported files are .onnx and .xml')
    return kind(path, threads)


@contextmanager
def reports_to_nobody() -> Iterator[None]:
    """Keeps OpenVINO's converter, and NNCF where it is imported, from sending each use to their maker.

    They do so without asking, except in continuous integration.
    """
    before = os.environ.get('CI')
    os.environ['CI'] = 'true'
    try:
        yield
    finally:
        os.environ.pop('CI')
        if before is not None:
            os.environ['CI'] = before


# OpenVINO's plugin for CPUs gives the thread that loads it a stack for signal handlers, and frees the stack with its
# Core: https://github.com/openvinotoolkit/openvino/pull/11894. If two Cores do not end in the reverse order, or one
# ends in another thread, the thread keeps a stack that is gone. Its next signal is a segmentation fault; the end of a
# data loader's process sends one.
@cache
def openvino_core() -> Any:
    """The one openvino.Core of this process; it lives as long as the process."""
    import openvino
    return openvino.Core()


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Gives the thread its stack for signal handlers back, for libraries that make openvino.Cores of their own."""
    if sys.platform != 'linux':
        yield
        return
    before, sigaltstack = _SignalStack(), ctypes.CDLL(None).sigaltstack
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""
    _fields_ = [('pointer', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]


def _record(text: str | None, path: Path) -> Record:
    if not text:
        raise UserError(f'{path} does not say what its outputs are: only files of tools/export.py do')
    return Record.from_json(text, str(path))


class _OnnxRuntime(Exported):

    def __init__(self, path: Path, threads: int | None) -> None:
        with requires('onnxruntime', 'export', f'running {path}'):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        except Exception as error:  # onnxruntime has many kinds
            raise UserError(f'{path} is no file that onnxruntime can run: {one_line(error)[:300]}') from error
        self.path, self.outputs = path, [output.name for output in self._session.get_outputs()]
        self.channels = self._session.get_inputs()[0].shape[1]
        self.record = _record(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self._session.run(None, {'image': images})))


class _OpenVino(Exported):

    def __init__(self, path: Path, threads: int | None) -> None:
        with requires('openvino', 'export', f'running {path}'):
            core = openvino_core()
        settings = {'INFERENCE_NUM_THREADS': threads} if threads else {}
        try:
            model = core.read_model(path)
            # bfloat16 by default where the CPU has it, which is not the file's precision
            self._model = core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32', **settings})
        except Exception as error:
            raise UserError(f'{path} is no file that OpenVINO can run: {one_line(error)[:300]}') from error
        self.path, self.outputs = path, [output.get_any_name() for output in self._model.outputs]
        self.channels = self._model.inputs[0].partial_shape[1].get_length()
        self.record = _record(model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None, path)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.array(array) for name, array in zip(self.outputs, self._model([images]).to_tuple())}
