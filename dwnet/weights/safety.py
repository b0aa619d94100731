"""What a file of weights may hold: checkpoints of this stack load with PyTorch's ``weights_only`` kept on.

PyTorch refuses every pickled name that it does not know. mmengine's own checkpoints hold two kinds of
those (mmengine#1655), the log history and the NumPy arrays in it; the official DWNet files hold their
settings as a yacs node. They carry data and no code, so they are allowed, and nothing else is: a file
cannot run code. What mmengine downloads is held to the same. They are allowed while a loader of ours or of mmengine
reads a file, and to no other library.

``weights_only`` does not keep a file from crashing or choking Python: a tuple nested a million times overflows the
stack when it is hashed, and a list of forty levels, each twice the level below, has no end when an error message
prints it. :func:`check_pickle` finds these before anything is loaded, and :func:`check_file` what is damaged.
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
    """Takes the place of ``getattr``, by which a log history refers to its statistics.

    The real ``getattr`` would open every attribute of every object to the file.

    Raises:
        ValueError: If it is asked for anything but the four statistics.
    """
    statistics = ('min', 'max', 'mean', 'current')
    if owner is not HistoryBuffer or name not in statistics:
        raise ValueError(f'the file refers to {owner!r}.{name}, which no checkpoint of ours does')
    return HistoryBuffer.__dict__[name]


class PlainDtype:
    """Takes the place of ``numpy.dtype``, whose constructor and state would take anything."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), '='

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype:
        """The type itself.

        Raises:
            ValueError: If it is not a type of numbers or text.
        """
        dtype = np.dtype(self.code)
        if dtype.kind not in 'biufcSU':
            raise ValueError(f'the file holds an array of {dtype}, which is no plain data')
        return dtype.newbyteorder('<' if self.order == '<' else '>' if self.order == '>' else '=')


class PlainArray(np.ndarray):
    """An array from a file: numbers or text, never objects, whose pointers a file could make up."""

    def __new__(cls, *_: Any, **__: Any) -> 'PlainArray':
        raise ValueError('the file makes an array from scratch, which no checkpoint does')

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, raw = state
        if not isinstance(raw, (bytes, bytearray)):  # bytes(10**11) would be that many zeros
            raise ValueError(f'the file holds an array made of a {type(raw).__name__}')
        super().__setstate__((version, shape, dtype.resolve(), fortran, bytes(raw)))

    def __reduce__(self) -> str | tuple:
        return np.asarray(self).__reduce__()  # saved again as what it is: a NumPy array


def reconstruct_array(*_: Any) -> PlainArray:
    """Takes the place of NumPy's ``_reconstruct``: the empty array that the state is then put into."""
    return np.ndarray.__new__(PlainArray, (0, ), np.int8)


def reconstruct_scalar(dtype: PlainDtype, raw: bytes) -> np.generic:
    """Takes the place of NumPy's ``scalar``."""
    return np.frombuffer(raw, dtype.resolve(), 1)[0]


# By the name in the file. NumPy 2 moved two functions; files written under NumPy 1 call them by the old name.
_TYPES: list[tuple[Callable, str]] = [
    (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (history_statistic, 'builtins.getattr'),
    (OrderedDict, 'yacs.config.CfgNode'),  # a dict with attributes; its content is all that is read
    (PlainDtype, 'numpy.dtype'),
    (PlainArray, 'numpy.ndarray'),
    *((function, f'{module}.{name}') for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
      for function, name in ((reconstruct_array, '_reconstruct'), (reconstruct_scalar, 'scalar')))]
_lock = threading.RLock()


@contextmanager
def checkpoint_types() -> Iterator[None]:
    """Lets ``torch.load`` take what checkpoints hold beside tensors while the block lasts; also a decorator.

    PyTorch has one list of safe names for the process: other threads see these names meanwhile, and blocks in
    several threads wait for each other. What the user has put on the list is there again afterwards.
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
    """By which files call an entry of PyTorch's list."""
    return known[1] if isinstance(known, tuple) else f'{known.__module__}.{known.__qualname__}'


# Of what PyTorch lets a file call, that which checkpoints consist of, beside its dtypes and storages. The rest, such as
# bytearray or torch.FloatTensor, would make gigabytes of a number.
_PLAIN = {
    'collections.OrderedDict', 'collections.Counter', 'builtins.set', 'builtins.complex', '_codecs.encode',
    'torch.Size', 'torch.device', 'torch.nn.parameter.Parameter',
    *(f'torch._utils._rebuild_{what}' for what in ('tensor', 'tensor_v2', 'tensor_v3', 'parameter')),
}


def _is_plain(name: str) -> bool:
    owner, _, last = name.rpartition('.')
    allowed = map(_name, [*_TYPES, *torch.serialization.get_safe_globals()])  # here, and by the user
    return (name in _PLAIN or name in allowed
            or owner.split('.')[0] == 'torch' and (last.endswith('Storage') or isinstance(
                getattr(torch, last, None), torch.dtype)))


def check_pickle(file: BinaryIO, deepest: int = 100, most: int = 500_000, growth: int = 100) -> None:
    """Walks through the next pickle in a file and builds nothing but the graph of what would lie in what.

    Args:
        file: The file; it is left behind the pickle.
        deepest: How deep tuples may be nested.
        most: How many tuples, lists, dicts and calls it may hold; ten times those of large checkpoints.
        growth: How many times larger than the pickle its content may be, where each object counts in all its places.

    Raises:
        pickle.UnpicklingError: If it calls what no checkpoint does, or holds more than this.
    """
    start, mark = file.tell(), object()
    stack: list = []
    memo: dict[int, object] = {}
    containers: list[list] = []  # what is in each tuple, list, dict or call
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
            # other codecs than this one, by which bytes are written, can double what they get
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
    """Finds damage that loading would not: no reader of PyTorch or safetensors compares a checksum.

    Raises:
        Exception: Of whatever kind; the message says what is wrong.
    """
    if path.endswith('.safetensors'):
        metadata, header, tensors = _split(Path(path).read_bytes())
        if 'sha256' in metadata and metadata['sha256'] != _digest(header, tensors):
            raise ValueError('its SHA-256 is not the one that it holds of itself; fetch it again')
    else:
        with open(path, 'rb') as file:
            if file.read(4) == b'PK\3\4':  # by which PyTorch knows its zip files
                _check_archive(path)
            else:  # older than PyTorch 1.6: magic number, version, system, content, names of storages
                file.seek(0)
                for _ in range(5):
                    check_pickle(file)


def _split(content: bytes) -> tuple[dict[str, str], dict[str, Any], memoryview]:
    """A safetensors file as what is said of it, what is said of each tensor, and the tensors."""
    start = 8 + int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:start])
    return header.pop('__metadata__', {}), header, memoryview(content)[start:]


def _digest(header: dict[str, Any], tensors: memoryview) -> str:
    return hashlib.sha256(json.dumps(header).encode() + tensors).hexdigest()


def with_digest(content: bytes) -> bytes:
    """The same safetensors file with its SHA-256 in its header, where no renaming loses it."""
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
    """Makes mmengine's own loaders read what checkpoints hold, and run no code from downloads.

    Else mmengine cannot read its own checkpoints on a current PyTorch (mmengine#1655). Files go through the registry of
    its ``CheckpointLoader``; addresses, model-zoo names included, through one function, which is PyTorch's, and
    PyTorch's lets a downloaded file run code unless it is told otherwise.
    """
    loaders = mmengine.runner.checkpoint
    loaders.CheckpointLoader.register_scheme('', checkpoint_types()(loaders.load_from_local), force=True)
    loaders.load_url = checkpoint_types()(
        functools.partial(torch.hub.load_state_dict_from_url, weights_only=True))
