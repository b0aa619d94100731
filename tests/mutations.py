"""Damaged and hostile files, made from a whole one by a random generator: what chaos_files.py lets loose."""
import contextlib
import io
import json
import pickle
import pickletools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import safetensors.torch
import torch
from numpy.random import Generator
from PIL import Image

from dwnet.weights.safety import checkpoint_types

Mutation = Callable[[Generator, bytes], bytes]


# --- Any bytes -----------------------------------------------------------------------------------


def flip_bits(rng: Generator, data: bytes) -> bytes:
    out = bytearray(data)
    for place in rng.integers(len(data), size=rng.integers(1, 17)):
        out[place] ^= 1 << rng.integers(8)
    return bytes(out)


def overwrite(rng: Generator, data: bytes) -> bytes:
    start = rng.integers(len(data))
    return (data[:start] + rng.bytes(rng.integers(1, 65)) + data[start + 64:])[:len(data)].ljust(len(data), b'\0')


def blank(rng: Generator, data: bytes) -> bytes:
    start, length = rng.integers(len(data)), rng.integers(1, 5000)
    return (data[:start] + bytes(length) + data[start + length:])[:len(data)]


def truncate(rng: Generator, data: bytes) -> bytes:
    return data[:rng.integers(len(data))]


def extend(rng: Generator, data: bytes) -> bytes:
    return data + rng.bytes(rng.choice([1, 100, 100_000]))


def insert(rng: Generator, data: bytes) -> bytes:
    start = rng.integers(len(data))
    return data[:start] + rng.bytes(rng.integers(1, 1000)) + data[start:]


def remove(rng: Generator, data: bytes) -> bytes:
    start = rng.integers(len(data))
    return data[:start] + data[start + rng.integers(1, 5000):]


def empty(rng: Generator, data: bytes) -> bytes:
    return b''


BYTES: dict[str, Mutation] = {
    'bits flipped': flip_bits, 'bytes overwritten': overwrite, 'block zeroed': blank, 'truncated': truncate,
    'extended': extend, 'bytes inserted': insert, 'bytes removed': remove, 'empty': empty}


# --- Zip files and the pickle in them, with checksums that are right -----------------------------


def read_zip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def _pickle_name(entries: dict[str, bytes]) -> str:
    return next(name for name in entries if name.endswith('/data.pkl'))


def replace_pickle(data: bytes, content: bytes) -> bytes:
    entries = read_zip(data)
    entries[_pickle_name(entries)] = content
    return write_zip(list(entries.items()))


def drop_entry(rng: Generator, data: bytes) -> bytes:
    entries = list(read_zip(data).items())
    del entries[rng.integers(len(entries))]
    return write_zip(entries)


def duplicate_entry(rng: Generator, data: bytes) -> bytes:
    entries = list(read_zip(data).items())
    name, content = entries[rng.integers(len(entries))]
    return write_zip([*entries, (name, rng.bytes(len(content)))])


def rename_entry(rng: Generator, data: bytes) -> bytes:
    entries = list(read_zip(data).items())
    place = rng.integers(len(entries))
    name, content = entries[place]
    entries[place] = (rng.choice(['../../escaped', '/tmp/escaped', name + '0', name.upper(), 'archive/data/']), content)
    return write_zip(entries)


def compress(rng: Generator, data: bytes) -> bytes:
    """A bomb: an entry of zeros a thousand times larger than the file says."""
    entries = read_zip(data)
    largest = max(entries, key=lambda name: len(entries[name]))
    entries[largest] = bytes(2**28)
    return write_zip(list(entries.items()), zipfile.ZIP_DEFLATED)


def claim_sizes(rng: Generator, data: bytes) -> bytes:
    """The directory of the zip file claims other sizes and offsets."""
    out = bytearray(data)
    headers = [i for i in range(len(data) - 46) if data[i:i + 4] == b'PK\1\2'] if len(data) < 2**20 else []
    start = headers[rng.integers(len(headers))] if headers else data.rfind(b'PK\1\2')
    field = rng.choice([20, 24, 42])  # compressed size, size, offset
    out[start + field:start + field + 4] = struct.pack('<I', rng.choice([0, 2**31, 2**32 - 1, 2**20]))
    return bytes(out)


_OPCODES = [op.code.encode('latin1') for op in pickletools.opcodes]


def alter_opcodes(rng: Generator, data: bytes) -> bytes:
    entries = read_zip(data)
    content = bytearray(entries[_pickle_name(entries)])
    places = [place for _, _, place in pickletools.genops(bytes(content))]
    for _ in range(rng.integers(1, 4)):
        place = places[rng.integers(len(places))]
        content[place:place + 1] = rng.choice([b'', _OPCODES[rng.integers(len(_OPCODES))]])
    return replace_pickle(data, bytes(content))


ZIP: dict[str, Mutation] = {
    'zip entry dropped': drop_entry, 'zip entry twice': duplicate_entry, 'zip entry renamed': rename_entry,
    'zip bomb': compress, 'zip sizes claimed': claim_sizes, 'pickle opcodes altered': alter_opcodes}


# --- The content of a checkpoint, saved again ----------------------------------------------------


def _save(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _load(data: bytes) -> dict:
    with checkpoint_types():
        return torch.load(io.BytesIO(data), weights_only=True)


def _some_dict(rng: Generator, content: dict) -> dict:
    """One of the dicts at which a checkpoint can be altered."""
    optimizer = content['optimizer']
    moments, hub = list(optimizer['state'].values()), content['message_hub']
    places = [content, content['meta'], content['state_dict'], optimizer, moments[rng.integers(len(moments))],
              optimizer['param_groups'][rng.integers(len(optimizer['param_groups']))],
              content['param_schedulers'][rng.integers(len(content['param_schedulers']))], hub, hub['runtime_info']]
    return places[rng.integers(len(places))]


def _some_key(rng: Generator, place: dict) -> object:
    return list(place)[rng.integers(len(place))]


def rename_key(rng: Generator, data: bytes) -> bytes:
    content = _load(data)
    place = _some_dict(rng, content)
    key = _some_key(rng, place)
    place[f'{key}x'] = place.pop(key)
    return _save(content)


def drop_key(rng: Generator, data: bytes) -> bytes:
    content = _load(data)
    place = _some_dict(rng, content)
    place.pop(_some_key(rng, place))
    return _save(content)


def add_key(rng: Generator, data: bytes) -> bytes:
    content = _load(data)
    _some_dict(rng, content)[rng.choice(['extra', 'backbone.x\n\x1b[31m', 'head.fc.weight.', ''])] = torch.ones(2)
    return _save(content)


def alter_type(rng: Generator, data: bytes) -> bytes:
    content = _load(data)
    place = _some_dict(rng, content)
    place[_some_key(rng, place)] = [None, 'x\ny', [], {}, ('a', ), {1, 2}][rng.integers(6)]
    return _save(content)


def _alter_tensor(rng: Generator, data: bytes, alter: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    content = _load(data)
    places = [content['state_dict'], content['optimizer']['state'][int(rng.integers(20))]]
    place = places[rng.integers(2)]
    key = _some_key(rng, place)
    place[key] = alter(place[key])
    return _save(content)


_DTYPES = [torch.float16, torch.float64, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.complex64,
           torch.uint8, torch.float8_e4m3fn]


def alter_dtype(rng: Generator, data: bytes) -> bytes:
    return _alter_tensor(rng, data, lambda tensor: tensor.to(_DTYPES[rng.integers(len(_DTYPES))]))


def alter_shape(rng: Generator, data: bytes) -> bytes:
    shapes = [lambda t: t[None, None], lambda t: t.flatten()[:1], lambda t: t.flatten()[:0],
              lambda t: torch.cat([t.reshape(-1), torch.ones(1)])]
    return _alter_tensor(rng, data, shapes[rng.integers(len(shapes))])


def claim_tensor(rng: Generator, data: bytes) -> bytes:
    """A tensor that repeats one value up to thousands of gigabytes."""
    return _alter_tensor(rng, data, lambda tensor: torch.ones(1).expand(2**int(rng.integers(30, 45))))


def layout(rng: Generator, data: bytes) -> bytes:
    kinds = [lambda t: torch.ones(2, 2).to_sparse(), lambda t: t.to('meta'),
             lambda t: torch.quantize_per_tensor(torch.ones(2), .1, 0, torch.quint8)]
    return _alter_tensor(rng, data, kinds[rng.integers(len(kinds))])


def name_other_files(rng: Generator, data: bytes) -> bytes:
    """What mmengine removes when there is something better: files that the checkpoint names."""
    content, victim = _load(data), str(rng.choice(['/tmp', '/etc/passwd', '..']))
    content['message_hub']['runtime_info'].update(best_ckpt=victim, last_ckpt=victim)
    if rng.integers(2):
        content['message_hub']['runtime_info']['keep_ckpt_ids'] = [victim, 1]
    return _save(content)


CONTENT: dict[str, Mutation] = {
    'key renamed': rename_key, 'key dropped': drop_key, 'key added': add_key, 'type altered': alter_type,
    'dtype altered': alter_dtype, 'shape altered': alter_shape, 'huge tensor claimed': claim_tensor,
    'unusual layout': layout, 'other files named': name_other_files}


# --- Hostile pickles, opcode by opcode -----------------------------------------------------------


def _text(text: str) -> bytes:
    raw = text.encode()
    return b'X' + struct.pack('<I', len(raw)) + raw


def _number(value: int) -> bytes:
    raw = pickle.encode_long(value)
    return b'\x8a' + bytes([len(raw)]) + raw


def _global(path: str) -> bytes:
    module, _, name = path.rpartition('.')
    return f'c{module}\n{name}\n'.encode()


def _tuple(*items: bytes) -> bytes:
    return b'(' + b''.join(items) + b't'


def _call(path: str, *arguments: bytes) -> bytes:
    return _global(path) + _tuple(*arguments) + b'R'


def _new(path: str, *arguments: bytes) -> bytes:
    return _global(path) + _tuple(*arguments) + b'\x81'


def _dict(**items: bytes) -> bytes:
    return b'}(' + b''.join(_text(key) + value for key, value in items.items()) + b'u'


def _storage(size: bytes = _number(4), key: bytes = _text('0')) -> bytes:
    return _tuple(_text('storage'), _global('torch.FloatStorage'), key, _text('cpu'), size) + b'Q'


def _tensor(offset: int, size: list[int], stride: list[int], storage: bytes | None = None) -> bytes:
    return _call('torch._utils._rebuild_tensor_v2', storage or _storage(), _number(offset),
                 _tuple(*map(_number, size)), _tuple(*map(_number, stride)), b'\x89',
                 _call('collections.OrderedDict'))


_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
_EMPTY_ARRAY = _call('numpy._core.multiarray._reconstruct', _global('numpy.ndarray'), _tuple(_number(0)), b'C\1b')
_INT, _NONE = _number(1), b'N'


def _dtype(code: str) -> bytes:
    return _call('numpy.dtype', _text(code), b'\x89', b'\x88') + _tuple(
        _number(3), _text('<'), _NONE, _NONE, _NONE, _number(-1), _number(-1), _number(0)) + b'b'


def _array(shape: int, code: str, raw: bytes) -> bytes:
    return _EMPTY_ARRAY + _tuple(_number(1), _tuple(_number(shape)), _dtype(code), b'\x89', raw) + b'b'


def _doubled(levels: int) -> bytes:
    """A tuple of the one below, twice, by reference: its hash takes 2 to the number of levels steps."""
    return b')' + b''.join(b'q' + bytes([i]) + b'h' + bytes([i]) + b'\x86' for i in range(100, 100 + levels))


def _doubled_lists(levels: int) -> bytes:
    """The same of lists, whose text has no end."""
    lists = (b'](h' + bytes([i]) + b'h' + bytes([i]) + b'eq' + bytes([i + 1]) for i in range(100, 100 + levels))
    return b'(]qd' + b''.join(lists) + b't'


def hostile_pickles(mark: str) -> dict[str, list[bytes]]:
    """Kind → expressions of the pickle language that leave one object; those that run create the file ``mark``."""
    touch, python = _text(f'touch {mark}'), _text(f"open({mark!r}, 'w').close()")
    nested = pickle.dumps(_Touch(mark), 2)
    latin = _call('_codecs.encode', _text('ab'), _text('latin1'))
    hexed = latin
    for _ in range(45):
        hexed = _call('_codecs.encode', hexed, _text('hex'))
    return {
        'os.system': [_call('os.system', touch), _call('posix.system', touch), _call('nt.system', touch)],
        'eval and exec': [_call(f'{module}.{name}', python) for name in ('eval', 'exec')
                          for module in ('builtins', '__builtin__')],
        'subprocess': [_call(f'subprocess.{name}', _tuple(_text('touch'), _text(mark)))
                       for name in ('Popen', 'call', 'check_output', 'run')],
        'open': [_call('builtins.open', _text(mark), _text('w')), _call('io.open', _text(mark), _text('w')),
                 _call('pathlib.Path', _text(mark)) + _dict() + b'b', _call('os.mkdir', _text(mark))],
        'import': [_call('importlib.import_module', _text('os')), _call('builtins.__import__', _text('os')),
                   _call('importlib._bootstrap._gcd_import', _text('antigravity')), _call('runpy.run_path', python)],
        'getattr chains': [
            _call('builtins.getattr', _global(_HISTORY), _text('__init__')),
            _call('builtins.getattr', _call('builtins.getattr', _global(_HISTORY), _text('mean')),
                  _text('__globals__')),
            _call('builtins.getattr', _global('collections.OrderedDict'), _text('fromkeys')),
            _call('builtins.getattr', _global('builtins.getattr'), _text('__globals__')),
            _global('mmengine.logging.history_buffer.HistoryBuffer.mean.__globals__'),
            _global('torch.serialization.os.system') + _tuple(touch) + b'R',
            _global('torch.os.system') + _tuple(touch) + b'R'],
        'nested loading': [
            _call('pickle.loads', b'C' + bytes([len(nested)]) + nested), _call('_pickle.loads', latin),
            _call('torch.load', _text(mark)), _call('torch.hub.load', _text('x/y'), _text('z')),
            _call('torch.serialization.load', _text(mark), _NONE, _global('pickle.Unpickler')),
            _call('numpy.load', _text(mark)), _call('joblib.load', _text(mark)), _call('marshal.loads', latin),
            _call('torch.storage._load_from_bytes', b'C' + bytes([len(nested)]) + nested),
            _call('torch.jit.load', _text(mark)), _call('torch.package.PackageImporter', _text(mark))],
        'codecs': [hexed, _call('_codecs.encode', _text('x' * 9), _text('idna')), _call('_codecs.decode', latin),
                   _call('_codecs.encode', latin, _text('zlib')), _call('_codecs.encode', _text('a'), _text('os.path')),
                   _call('codecs.open', _text(mark), _text('w'))],
        'object arrays': [
            _array(1, 'O', b'C\x08' + b'\x41' * 8), _array(1, 'O8', b'C\x08' + b'\x01' * 8),
            _array(4, 'O', b'](K\1K\2K\3K\4e'), _array(1, 'i4,O', b'C\x0c' + bytes(12)),
            _array(2**40, 'f8', b'C\x08' + bytes(8)), _array(2**33, 'u1', _number(2**33)),
            _call('numpy.ndarray', _tuple(_number(1)), _text('O'), b'C\x08' + b'\x41' * 8),
            _new('numpy.ndarray', _tuple(_number(2**33)), _text('f8')), _array(1, 'U2147483647', b'C\x04abcd'),
            _array(1, 'M8[s]', b'C\x08' + bytes(8)),
            _call('numpy._core.multiarray.scalar', _dtype('O'), b'C\x08AAAAAAAA'),
            _call('numpy.core.multiarray.scalar', _dtype('f8'), b'C\x02ab'), _array(-1, 'f8', b'C\x08' + bytes(8)),
            _EMPTY_ARRAY + _NONE + b'b', _call('numpy._core.multiarray._reconstruct', _global('builtins.set'), _NONE)],
        'states': [
            _new(_HISTORY) + _tuple(_NONE, _dict(__class__=_global('collections.OrderedDict'))) + b'b',
            _new(_HISTORY) + _tuple(_NONE, _dict(__dict__=_NONE)) + b'b',
            _new(_HISTORY) + _dict(_statistics_methods=_dict(mean=_global('torch.nn.parameter.Parameter'))) + b'b',
            _new(_HISTORY) + _tuple(_NONE, _dict(__init__=_global('builtins.set'), update=_INT)) + b'b',
            _call('collections.OrderedDict') + _dict(items=_global('builtins.set'), keys=_INT) + b'b',
            _call('yacs.config.CfgNode') + _dict(__class__=_INT, items=_INT) + b'b',
            _call('numpy.dtype', _text('f8')) + _INT + b'b', _global(_HISTORY) + _dict(update=_INT) + b'b',
            _new('torch.nn.parameter.Parameter') + _tuple(_INT, _INT) + b'b',
            _call('torch.nn.parameter.Parameter') + _dict(a=_INT) + b'b',
            _tensor(0, [2], [1]) + _tuple(_storage(), _number(2**40), _tuple(_number(9)), _tuple(_INT)) + b'b'],
        'odd rebuilds': [
            _tensor(0, [8], [1]), _tensor(3, [4], [1]), _tensor(-1, [1], [1]), _tensor(0, [4], [-1]),
            _tensor(0, [4], [2**60]), _tensor(0, [2**40], [1]), _tensor(0, [2**40], [0]),
            _tensor(0, [2**62] * 3, [0] * 3),
            _tensor(2**62, [4], [1]), _tensor(0, [-4], [1]), _tensor(0, [4], []),
            _tensor(0, [4], [1], _storage(_number(2**40))), _tensor(0, [4], [1], _storage(_number(-4))),
            _tensor(0, [4], [1], _NONE), _tensor(0, [4], [1], _INT),
            _call('torch._utils._rebuild_tensor', _NONE, _NONE), _call('torch._utils._rebuild_tensor_v3', *[_INT] * 7),
            _call('torch._utils._rebuild_parameter', _INT, _INT, _INT),
            _call('torch._utils._rebuild_meta_tensor_no_storage', _global('torch.float32'), _tuple(_number(2**40)),
                  _tuple(_INT), b'\x89'),
            _call('torch._utils._rebuild_qtensor', _storage(), _INT, _tuple(_number(2**34)), _tuple(_INT),
                  _tuple(_global('torch.per_tensor_affine'), _INT, _INT), b'\x89', _NONE),
            _call('torch._utils._rebuild_sparse_tensor', _global('torch.float32'), _NONE),
            _call('torch._utils._rebuild_nested_tensor', _NONE, _NONE, _NONE, _NONE),
            _call('torch._utils._rebuild_wrapper_subclass', *[_NONE] * 8),
            _call('torch._utils._rebuild_device_tensor_from_numpy', *[_NONE] * 4),
            _call('torch._tensor._rebuild_from_type_v2', _global('builtins.getattr'), _global('torch.Tensor'),
                  _tuple(_global(_HISTORY), _text('mean')), _dict(data=_INT)),
            _call('torch.Size', _tuple(_text('x'))), _call('torch.device', _text(mark)),
            _call('torch.FloatTensor', _INT)],
        'memory': [
            _call('builtins.bytearray', _number(2**38)), _call('builtins.bytearray', _number(2**34)),
            _call('torch.FloatTensor', _number(2**38)), _call('torch.FloatTensor', _number(2**33)),
            _call('torch.storage.UntypedStorage', _number(2**45)), b'\x8b' + struct.pack('<i', 2**31 - 1) + b'\1',
            b'X' + struct.pack('<I', 2**32 - 1) + b'x', b'B' + struct.pack('<I', 2**31) + b'x',
            b'\x8e' + struct.pack('<Q', 2**60) + b'x', b'\x95' + struct.pack('<Q', 2**62) + b'N',
            b'r' + struct.pack('<I', 2**32 - 1)],
        'dict subclasses': [
            _call('collections.defaultdict', _global('os.system')), _new('collections.UserDict'),
            _call('collections.Counter', _text('abc')), _call('collections.OrderedDict', _tuple(_tuple(_INT, _INT))),
            _call('collections.ChainMap', _dict()), _call('mmengine.config.ConfigDict', _dict()),
            _call('types.SimpleNamespace'), _new('builtins.dict')],
        'INST and OBJ': [b'(' + touch + b'ios\nsystem\n', b'(' + _global('os.system') + touch + b'o',
                         b'(' + python + b'ibuiltins\nexec\n', b'(' + _global(_HISTORY) + b'o',
                         b'(imodule\nclass\n'],
        'STACK_GLOBAL': [_text('os') + _text('system') + b'\x93' + _tuple(touch) + b'R',
                         _text('builtins') + _text('exec') + b'\x93' + _tuple(python) + b'R', _INT + _INT + b'\x93'],
        'persistent ids': [b'P../../etc/passwd\n', _text(mark) + b'Q', _INT + b'Q', b')Q',
                           _tuple(_text('module')) + b'Q', _tuple(_text('storage')) + b'Q',
                           _tuple(_text('storage'), *[_NONE] * 4) + b'Q',
                           _storage(key=_text('../data.pkl')), _storage(key=_tuple(_INT)),
                           _storage(key=_text('x' * 5000)),
                           _tuple(_text('storage'), _global('os.system'), _text('0'), _text('cpu'), _number(4)) + b'Q',
                           _tuple(_text('storage'), _global('torch.FloatStorage'), _text('0'), _text('nonsense'),
                                  _number(4)) + b'Q'],
        'memo games': [
            b'h\xfe', b'j\xff\xff\xff\xff', b'00000', b'2', b'1', b'(', b't', b'a',
            b']q\xf0h\xf0a', b'}(' + b')' + b'\x85' * 1_000_000 + b'K\1u', b'(' * 100_000, b']' + b']a' * 50,
            b']' * 100_000 + b'a' * 99_999, b'}' + b'K\1}' * 5_000 + b's' * 5_000,
            _doubled(60), b'}(' + _doubled(60) + b'K\1u', _doubled(60) + b')R', _doubled_lists(60) + b')R',
            _doubled_lists(60), _global('builtins.set') + b'(](' + _doubled(60) + b'e' + b'tR'],
        'copyreg': [_call('copyreg._reconstructor', _global('os._wrap_close'), _global('builtins.object'), _NONE),
                    _call('copyreg.__newobj__', _global(_HISTORY)), b'\x82\1', b'\x83\1\1', b'\x84\1\1\1\1',
                    _call('copyreg.add_extension', _text('os'), _text('system'), _INT),
                    _global(_HISTORY) + b')}\x92'],
        'functools and operator': [
            _call('functools.partial', _global('os.system'), touch) + b')R',
            _call('functools.reduce', _global('os.system')),
            _call('operator.attrgetter', _text('system')), _call('operator.methodcaller', _text('system'), touch),
            _call('builtins.map', _global('os.system'), _tuple(touch)),
            _call('builtins.apply', _global('os.system'), touch),
            _call('types.FunctionType', _NONE), _call('weakref.finalize', _NONE), _call('builtins.type', _text('x'))],
        'project code': [
            _call('dwnet.weights.safety.history_statistic', _global(_HISTORY), _text('mean')),
            _call('dwnet.weights.safety.PlainDtype', _text('O')), _call('mmengine.Config.fromstring', python),
            _call('mmengine.config.Config._file2dict', _text(mark)), _call('mmengine.fileio.load', _text(mark)),
            _call('mmengine.utils.import_modules_from_strings', _text('os')),
            _call('mmengine.registry.MODELS.build', _dict(type=_text('os.system')))],
    }


class _Touch:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return open, (self.mark, 'w')


def place_pickle(rng: Generator, data: bytes, expression: bytes) -> bytes:
    """Puts a hostile expression beside the weights of a whole file, in their place, or into the older formats."""
    entries = read_zip(data)
    whole = entries[_pickle_name(entries)]
    alone = b'\x80' + bytes([rng.choice([2, 2, 2, 0, 4, 5])]) + _dict(state_dict=expression) + b'.'
    kind = rng.integers(5)
    if kind <= 1:
        return replace_pickle(data, whole[:-1] + _text('extra') + expression + b's.')
    if kind == 2:
        return replace_pickle(data, alone)
    if kind == 3:  # before PyTorch 1.6
        head = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, dict(little_endian=True))
        return b''.join(pickle.dumps(part, 2) for part in head) + alone + pickle.dumps([], 2)
    if rng.integers(2):
        return alone
    buffer = io.BytesIO()  # before PyTorch 0.1.10
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            info = tarfile.TarInfo(name)
            info.size = len(alone)
            archive.addfile(info, io.BytesIO(alone))
    return buffer.getvalue()


# --- safetensors ---------------------------------------------------------------------------------


def alter_header(rng: Generator, data: bytes) -> bytes:
    length = struct.unpack('<Q', data[:8])[0]
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    header.pop('__metadata__')  # its SHA-256 would tell
    name = _some_key(rng, dict.fromkeys(header, 0))
    entry = header[name]
    kind = rng.integers(8)
    if kind == 0:
        entry['shape'] = [2**62, 2**62]
    elif kind == 1:
        entry['data_offsets'] = [0, 2**63 - 1]
    elif kind == 2:
        entry['data_offsets'] = [entry['data_offsets'][1], entry['data_offsets'][0]]
    elif kind == 3:
        entry['dtype'] = str(rng.choice(['I32', 'F64', 'BF16', 'X99', '']))
    elif kind == 4:
        header[name + '\n'] = header.pop(name)
    elif kind == 5:
        del header[name]
    elif kind == 6:
        entry['shape'] = rng.choice(['x', None, -1])
    raw = json.dumps(header, default=str).encode()
    size = 2**60 if kind == 7 else len(raw)
    return struct.pack('<Q', size) + raw + body


def retype(rng: Generator, data: bytes) -> bytes:
    weights = safetensors.torch.load(data)
    key = _some_key(rng, weights)
    weights[key] = [lambda t: t.long(), lambda t: t[None].clone(), lambda t: t.half(), lambda t: t.bool()][
        rng.integers(4)](weights[key])
    return safetensors.torch.save(weights)


SAFETENSORS: dict[str, Mutation] = {'header altered': alter_header, 'tensor altered': retype}


# --- Images --------------------------------------------------------------------------------------


def encode_image(image: Image.Image, suffix: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, dict(zip(('.jpg', '.png'), ('JPEG', 'PNG')))[suffix], quality=95)
    return buffer.getvalue()


def claim_pixels(rng: Generator, data: bytes) -> bytes:
    """A header that claims 60,000 × 60,000 pixels, or none; a PNG's with the right checksum."""
    width, height = _one_of(rng, [(60_000, 60_000), (0, 64), (64, 0), (2**16 - 1, 1), (1, 1)])
    if data.startswith(b'\x89PNG'):
        header = b'IHDR' + struct.pack('>II', width, height) + data[24:29]
        return data[:12] + header + struct.pack('>I', zlib.crc32(header)) + data[33:]
    start = data.find(b'\xff\xc0')
    return data[:start + 5] + struct.pack('>HH', height, width) + data[start + 9:]


def no_image(rng: Generator, data: bytes) -> bytes:
    return _one_of(rng, [b'GIF89a', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'<html>404</html>', b'BM' + bytes(60),
                         b'\0' * 500, b'P6 1000000 1000000 255\n', b'II*\0' + bytes(80)])


IMAGES: dict[str, Mutation] = {**BYTES, 'pixels claimed': claim_pixels, 'no image': no_image}


# --- COCO annotations ----------------------------------------------------------------------------

_ODD = [None, 'x', [], {}, -1, 0, 1.5, float('nan'), float('inf'), -float('inf'), 10**400, 1e300, 2**63, True, [[]],
        '\0', [1, 2], {'a': 1}]


def _one_of(rng: Generator, items: list) -> object:
    return items[rng.integers(len(items))]


def _entry(rng: Generator, coco: dict) -> dict:
    return _one_of(rng, coco[_one_of(rng, ['images', 'annotations', 'annotations', 'categories'])])


def coco_keys(rng: Generator, coco: dict) -> None:
    place = coco if rng.random() < .2 else _entry(rng, coco)
    del place[_one_of(rng, list(place))]


def coco_types(rng: Generator, coco: dict) -> None:
    place = coco if rng.random() < .1 else _entry(rng, coco)
    place[_one_of(rng, list(place))] = _one_of(rng, _ODD)


def coco_entries(rng: Generator, coco: dict) -> None:
    part = coco[_one_of(rng, list(coco))]
    part[rng.integers(len(part))] = _one_of(rng, _ODD)


def coco_boxes(rng: Generator, coco: dict) -> None:
    box = _one_of(rng, coco['annotations'])['bbox']
    box[rng.integers(4)] = _one_of(rng, [
        float('nan'), float('inf'), -float('inf'), -5, 0, -1000, 1e300, 10**400, 1e9, .1])
    if rng.integers(4) == 0:
        del box[rng.integers(4)]


def coco_segmentations(rng: Generator, coco: dict) -> None:
    huge = float(_one_of(rng, [1e6, 1e12, 1e300, float('inf'), float('nan'), -1e9]))
    _one_of(rng, coco['annotations'])['segmentation'] = _one_of(rng, [
        [], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[1, 2, 3, 4, huge, 6]], [[huge] * 6], [[1, 1, 9, 1, 9, 9]],
        [['a'] * 6], [None], 'x', 5, [[[1, 2]] * 6], [[1, 1, 9, 1, 9, 9], [huge] * 6], [[5] * 6], [[-50] * 6]])


def coco_rle(rng: Generator, coco: dict) -> None:
    mask = _one_of(rng, coco['annotations'])['segmentation']
    whole = mask['counts']
    place = int(rng.integers(len(whole)))
    mask.update(_one_of(rng, [
        dict(counts=whole[:place]), dict(counts=whole[:place] + chr(rng.integers(33, 127)) + whole[place + 1:]),
        dict(counts=''), dict(counts='o' * 400), dict(counts=[5, -5, 2**40]), dict(counts=[128 * 128]), dict(counts=[]),
        dict(counts=None), dict(counts='\u20ac'), dict(size=[2**20, 2**20]), dict(size=[128]), dict(size=[-128, -128]),
        dict(size=[64, 256]), dict(size=None), dict(size=[float('nan'), 128]), dict(counts=[0] * 100_000)]))


def coco_ids(rng: Generator, coco: dict) -> None:
    part, key = _one_of(rng, [('images', 'id'), ('annotations', 'id'), ('annotations', 'image_id'),
                              ('categories', 'id'), ('annotations', 'category_id')])
    entry, other = _one_of(rng, coco[part]), _one_of(rng, coco[part])
    entry[key] = _one_of(rng, [other[key], 10**6, -1, '3', 1.5, None, 2**70])


def coco_names(rng: Generator, coco: dict) -> None:
    image = _one_of(rng, coco['images'])
    image['file_name'] = _one_of(rng, [
        '../../../../../../etc/passwd', '/etc/passwd', 'missing.jpg', '', '.', '..', '\0', 'x' * 5000, '00001.jpg\n',
        '~/x.jpg', 'http://127.0.0.1:9/x.jpg', 's3://x/y.jpg', '../../annotations/train.json', '/dev/zero'])


def coco_sizes(rng: Generator, coco: dict) -> None:
    image = _one_of(rng, coco['images'])
    image[_one_of(rng, ['width', 'height'])] = _one_of(rng, [
        0, 1, -128, 127, 1280, 2**31, 10**30, float('nan'), '128', 128.5])


def coco_empty(rng: Generator, coco: dict) -> None:
    coco[_one_of(rng, list(coco))] = []


def coco_as_tools_write(rng: Generator, coco: dict) -> None:
    """Every annotation lacks something, or is written in another way; some are damaged beside that."""
    runs = [0, 5, 128 * 128 - 5]
    change = _one_of(rng, [
        lambda a: a.pop('bbox'), lambda a: a.pop('area'), lambda a: a.update(bbox=None, area=None),
        lambda a: a.update(area=0, bbox=[0, 0, 0, 0]), lambda a: a.update(iscrowd=_one_of(rng, [None, '0', 'x'])),
        lambda a: a.update(id=str(a['id'] - 1), image_id=str(a['image_id']), category_id=float(a['category_id'])),
        lambda a: a.update(bbox=[*a['bbox'][:2], a['bbox'][0] + a['bbox'][2], a['bbox'][1] + a['bbox'][3]]),
        lambda a: a.update(bbox=[value / 128 for value in a['bbox']]),
        lambda a: a['segmentation'].update(counts=runs),
        lambda a: a.update(bbox=None, segmentation=[[.1, .1, .9, .1, .9, .9]]),
        lambda a: [a.pop('bbox'), a['segmentation'].update(
            counts=_one_of(rng, ['', 'o' * 400, '\u20ac', '0', *[runs] * 9]))],
        lambda a: a.update(segmentation=_one_of(rng, [None, [], [[]]]))])
    for annotation in coco['annotations']:
        change(annotation)


def coco_merged(rng: Generator, coco: dict) -> None:
    """Two categories have one name."""
    first, second = rng.choice(len(coco['categories']), 2, replace=False)
    coco['categories'][first]['name'] = coco['categories'][second]['name']


_CONTENTS = [coco_as_tools_write, coco_merged, coco_keys, coco_types, coco_entries, coco_boxes, coco_segmentations,
             coco_rle, coco_ids, coco_names, coco_sizes, coco_empty]


def _in_json(mutate: Callable[[Generator, dict], None]) -> Mutation:

    def mutate_bytes(rng: Generator, data: bytes) -> bytes:
        coco = json.loads(data)
        for _ in range(rng.integers(1, 3)):
            with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # nothing is left to alter
                mutate(rng, coco)
        return json.dumps(coco).encode()

    return mutate_bytes


COCO: dict[str, Mutation] = {
    **{mutate.__name__.replace('coco_', 'altered '): _in_json(mutate) for mutate in _CONTENTS},
    'truncated': truncate, 'bytes overwritten': overwrite, 'bits flipped': flip_bits, 'empty': empty,
    'nested without end': lambda rng, data: b'[' * 100_000,
    'another document': lambda rng, data: json.dumps(_one_of(rng, _ODD[:-8] + [[], 'x'])).encode(),
    'many broken': lambda rng, data: json.dumps({**json.loads(data), 'annotations': [None] * 20}).encode()}
