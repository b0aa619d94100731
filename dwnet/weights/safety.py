"""What a file of weights may hold, so that checkpoints load with PyTorch's ``weights_only`` on.

With ``weights_only`` PyTorch refuses every pickled name that is not on its list. mmengine's checkpoints hold two kinds
of such names (mmengine#1655), the log history and the NumPy arrays in it; official DWNet files hold their settings as
a yacs node. This module allows these types, which carry data and no code, and nothing else: a file cannot run code,
and neither can a file that mmengine downloads. The types are allowed only while a loader of ours or of mmengine reads
a file, and not for other libraries.

``weights_only`` does not keep a file from crashing or stalling Python: hashing a tuple nested a million times
overflows the stack, and printing a list of forty levels, each twice the level below, never ends.
:func:`check_pickle` finds such files before anything is loaded, and :func:`check_file` finds damage.
"""
import functools
import hashlib
import io
import json
import os
import pickle
import pickletools
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, BinaryIO

import mmengine.runner.checkpoint
import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer


def history_statistic(owner: type, name: str) -> Callable:
    """Replaces ``getattr``, by which a pickled log history refers to its statistics.

    The real ``getattr`` would give the file every attribute of every object.

    Raises:
        ValueError: If the file asks for anything but the four statistics.
    """
    statistics = ('min', 'max', 'mean', 'current')
    if owner is not HistoryBuffer or name not in statistics:
        raise ValueError(f'the file refers to {owner!r}.{name}, which no checkpoint of ours does')
    return HistoryBuffer.__dict__[name]


class PlainDtype:
    """Replaces ``numpy.dtype``, whose constructor and state accept anything."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), '='

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype:
        """The NumPy dtype.

        Raises:
            ValueError: If the dtype is not one of numbers or text.
        """
        dtype = np.dtype(self.code)
        if dtype.kind not in 'biufcSU':
            raise ValueError(f'the file holds an array of {dtype}; only numbers and text are allowed')
        return dtype.newbyteorder('<' if self.order == '<' else '>' if self.order == '>' else '=')


class PlainArray(np.ndarray):
    """An array from a file: numbers or text, never objects, because a file could forge their pointers."""

    def __new__(cls, *_: Any, **__: Any) -> 'PlainArray':
        raise ValueError('the file makes an array from scratch, which no checkpoint does')

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, raw = state
        if not isinstance(raw, (bytes, bytearray)):  # bytes(10**11) would allocate 100 GB
            raise ValueError(f'the file holds an array made of a {type(raw).__name__}')
        super().__setstate__((version, shape, dtype.resolve(), fortran, bytes(raw)))

    def __reduce__(self) -> str | tuple:
        return np.asarray(self).__reduce__()  # saved again as a plain NumPy array


def reconstruct_array(*_: Any) -> PlainArray:
    """Replaces NumPy's ``_reconstruct``: returns the empty array that receives the state."""
    return np.ndarray.__new__(PlainArray, (0, ), np.int8)


def reconstruct_scalar(dtype: PlainDtype, raw: bytes) -> np.generic:
    """Replaces NumPy's ``scalar``."""
    return np.frombuffer(raw, dtype.resolve(), 1)[0]


# Our type, and its name in the file. NumPy 2 moved two functions; files written under NumPy 1 use the old names.
_TYPES: list[tuple[Callable, str]] = [
    (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (history_statistic, 'builtins.getattr'),
    (OrderedDict, 'yacs.config.CfgNode'),  # a dict with attributes; only the content is read
    (PlainDtype, 'numpy.dtype'),
    (PlainArray, 'numpy.ndarray'),
    *((function, f'{module}.{name}') for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
      for function, name in ((reconstruct_array, '_reconstruct'), (reconstruct_scalar, 'scalar')))]
_lock = threading.RLock()


@contextmanager
def checkpoint_types() -> Iterator[None]:
    """Lets ``torch.load`` accept the types of checkpoints inside the block; also a decorator.

    PyTorch has one list of safe names for the process: other threads see these names during the block, and blocks in
    several threads wait for each other. Names that the user put on the list are restored afterwards.
    """
    with _lock:
        users = torch.serialization.get_safe_globals()
        names = {name for _, name in _TYPES}
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([*_TYPES, *(k for k in users if _name(k) not in names)])
        try:
            yield
        finally:
            added = set(torch.serialization.get_safe_globals()).difference(_TYPES)
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals([*users, *added])


def _name(known: Callable | tuple[Callable, str]) -> str:
    """The name that files use for an entry of PyTorch's list."""
    return known[1] if isinstance(known, tuple) else f'{known.__module__}.{known.__qualname__}'


# The names that checkpoints need, beside dtypes and storages. PyTorch's list has more; some, such as bytearray and
# torch.FloatTensor, turn one number into gigabytes.
_PLAIN = {
    'collections.OrderedDict', 'collections.Counter', 'builtins.set', 'builtins.complex', '_codecs.encode',
    'torch.Size', 'torch.device', 'torch.nn.parameter.Parameter',
    *(f'torch._utils._rebuild_{what}' for what in ('tensor', 'tensor_v2', 'tensor_v3', 'parameter')),
}


def _is_plain(name: str) -> bool:
    owner, _, last = name.rpartition('.')
    allowed = map(_name, [*_TYPES, *torch.serialization.get_safe_globals()])  # by this module and by the user
    return (name in _PLAIN or name in allowed
            or owner.split('.')[0] == 'torch' and (last.endswith('Storage') or isinstance(
                getattr(torch, last, None), torch.dtype)))


def check_pickle(file: BinaryIO, deepest: int = 100, most: int = 500_000, growth: int = 100) -> None:
    """Checks the next pickle in a file without unpickling: builds only the graph of which object holds which.

    Args:
        file: The file, positioned at the pickle; afterwards it is positioned behind the pickle.
        deepest: How deep tuples may be nested.
        most: How many tuples, lists, dicts and calls the pickle may hold; ten times those of large checkpoints.
        growth: How many times larger than the pickle its content may be. An object counts in each of its places.

    Raises:
        pickle.UnpicklingError: If the pickle calls a function that no checkpoint calls, or exceeds a limit.
    """
    start, mark = file.tell(), object()
    stack: list = []
    memo: dict[int, object] = {}
    containers: list[list] = []  # content of each tuple, list, dict or call
    depth: dict[int, int] = {}
    argument: Any
    for operation, argument, _ in pickletools.genops(file):
        name, before = operation.name, operation.stack_before
        if name in ('BINPUT', 'LONG_BINPUT'):
            memo[argument] = stack[-1]
        elif name in ('BINGET', 'LONG_BINGET'):
            stack.append(memo[argument])
        elif name == 'MARK':
            stack.append(mark)
        elif name == 'GLOBAL':
            stack.append(argument.replace('__builtin__', 'builtins').replace(' ', '.'))  # Python 2's name
            if not _is_plain(stack[-1]):
                raise pickle.UnpicklingError(f'it calls {stack[-1]}, which no checkpoint does')
        elif not before and operation.stack_after and not name.startswith('EMPTY'):
            stack.append(argument)
        else:
            taken = []
            if pickletools.stackslice in before:
                while (item := stack.pop()) is not mark:
                    taken.append(item)
            taken += [stack.pop() for kind in before if kind not in (pickletools.stackslice, pickletools.markobject)]
            # pickles write bytes by the codec latin1; other codecs can double their input
            if name == 'REDUCE' and taken[1] == '_codecs.encode' and (taken[0] or [''])[0] != 'latin1':
                raise pickle.UnpicklingError('it encodes text as no checkpoint does')
            if name in ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'BUILD') and isinstance(taken[-1], list):
                stack.append(taken.pop())
                stack[-1].extend(taken)
            elif operation.stack_after:
                stack.append(taken)
                containers.append(taken)
                depth[id(taken)] = 1 + max((depth.get(id(item), 0) for item in taken), default=0)
                if depth[id(taken)] > deepest or len(containers) > most:
                    raise pickle.UnpicklingError('it nests objects without end')
    largest = growth * (file.tell() - start)
    inner = {id(held): [id(item) for item in held if isinstance(item, list)] for held in containers}
    size = {id(held): 1 + sum(len(item) if isinstance(item, (str, bytes)) else 1 for item in held)
            for held in containers}
    try:
        for held in TopologicalSorter(inner).static_order():
            size[held] += sum(size[item] for item in inner[held])
            if size[held] > largest:
                raise pickle.UnpicklingError('it nests objects without end')
    except CycleError as error:
        raise pickle.UnpicklingError('it holds an object that holds itself') from error


def check_file(path: str) -> None:
    """Finds damage that loading does not find: neither PyTorch nor safetensors compares a checksum.

    Raises:
        Exception: Of any kind; the message says what is wrong.
    """
    if path.endswith('.safetensors'):
        metadata, header, tensors = _split(Path(path).read_bytes())
        if 'sha256' in metadata and metadata['sha256'] != _digest(header, tensors):
            raise ValueError('its SHA-256 differs from the one in its header; fetch it again')
    else:
        with open(path, 'rb') as file:
            if file.read(4) == b'PK\3\4':  # PyTorch recognises zip files by these bytes
                _check_archive(path)
            else:  # older than PyTorch 1.6: magic number, version, system, content, names of storages
                file.seek(0)
                for _ in range(5):
                    check_pickle(file)


def _split(content: bytes) -> tuple[dict[str, str], dict[str, Any], memoryview]:
    """Splits a safetensors file into the metadata, the header of each tensor, and the tensors."""
    start = 8 + int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:start])
    return header.pop('__metadata__', {}), header, memoryview(content)[start:]


def _digest(header: dict[str, Any], tensors: memoryview) -> str:
    return hashlib.sha256(json.dumps(header).encode() + tensors).hexdigest()


def with_digest(content: bytes) -> bytes:
    """Adds the SHA-256 to the header of a safetensors file, where renaming the file does not lose it."""
    _, header, tensors = _split(content)
    metadata = dict(format='pt', sha256=_digest(header, tensors))
    text = json.dumps(dict(__metadata__=metadata, **header)).encode()
    text += b' ' * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return len(text).to_bytes(8, 'little') + text + tensors


def _check_archive(path: str) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > os.path.getsize(path):
            raise ValueError('it claims to hold more bytes than it has')
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError('it holds two entries of one name')
        if damaged := archive.testzip():
            raise ValueError(f'the checksum of its entry {damaged} is wrong')
        for entry in entries:
            if entry.filename.endswith('data.pkl'):
                check_pickle(io.BytesIO(archive.read(entry)))


def serve_mmengine() -> None:
    """Lets mmengine's loaders read checkpoints safely, from files and from addresses.

    Without this mmengine cannot read its own checkpoints on a current PyTorch (mmengine#1655). Files go through the
    registry of mmengine's ``CheckpointLoader``. Addresses, model-zoo names included, go through one PyTorch function,
    which by default lets a downloaded file run code.
    """
    loaders = mmengine.runner.checkpoint
    loaders.CheckpointLoader.register_scheme('', checkpoint_types()(loaders.load_from_local), force=True)
    loaders.load_url = checkpoint_types()(
        functools.partial(torch.hub.load_state_dict_from_url, weights_only=True))
