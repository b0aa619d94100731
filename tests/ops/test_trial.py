"""The trial that decides between Triton's kernel and PyTorch's operator, with faked kernels, times and devices."""
import json
import stat
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from dwnet.ops import (
    choose_backend,
    depthwise_conv2d,
    dynamic_depthwise_conv2d,
    inhomogeneous_depthwise_conv2d,
    trial,
    verdicts,
)

SHAPE = (2, 4, 5, 6)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The user's cache folder, empty, and a process that knows nothing yet, on a GPU."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(trial, '_tables', {})
    monkeypatch.setattr(trial, '_environment', lambda device: 'GPU X (40 GB), torch 2.11')
    return tmp_path / 'dwnet'


@pytest.fixture(autouse=True)
def said(monkeypatch):
    """The lines that were logged."""
    lines = []
    monkeypatch.setattr(trial, 'print_log', lambda line, *_: lines.append(line))
    return lines


class Operator:
    """Doubles the maps by two backends, of which one is broken or slow."""

    def __init__(self, monkeypatch, ms=dict(torch=2., triton=1.), result=lambda y: y):
        self.calls, self.ms, self.result = [], ms, result
        monkeypatch.setattr(trial, '_milliseconds', lambda call, device: self.ms[call.args[-1]])

    def __str__(self):
        return 'double'

    def __call__(self, x, weight, backend):
        self.calls.append(backend)
        return self.result(x * 2) if backend == 'triton' else x * 2

    def choose(self, dtype=torch.float32, may_try=True):
        return trial.choose(self, torch.zeros(SHAPE, dtype=dtype), torch.zeros(4, 1, 3, 3), may_try=may_try)


def fail(y):
    raise RuntimeError('PassManager::run failed\nat line 7')


@pytest.mark.parametrize('ms, backend', [
    (dict(torch=2., triton=1.), 'triton'), (dict(torch=1., triton=2.), 'torch'), (dict(torch=1., triton=1.), 'torch')])
def test_the_faster_one_is_kept(ms, backend, folder, said, monkeypatch):
    operator = Operator(monkeypatch, ms)
    assert operator.choose() == operator.choose() == backend
    assert operator.calls == ['triton', 'torch']  # compared once
    (use, verdict), = verdicts('cpu').items()
    assert use == ('double torch.float32 contiguous, 4 channels, kernels (1, 3, 3) for each image, '
                   '6 bits of positions')
    assert verdict.backend == backend and verdict.ms == ms
    file, = folder.iterdir()
    assert file.name == 'GPU-X-40-GB-torch-2.11.json' and json.loads(file.read_text()) == {use: ms}
    trial._tables.clear()  # the next process
    assert operator.choose() == backend and operator.choose(may_try=False) == backend and len(operator.calls) == 2
    monkeypatch.setattr(trial, '_environment', lambda device: 'GPU Y')  # or another version
    assert operator.choose() == backend and len(operator.calls) == 4
    assert not said


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('result, reason', [
    (fail, 'fails (RuntimeError: PassManager::run failed)'),
    (lambda y: y * torch.nan, 'is wrong: it differs by nan'),
    (lambda y: torch.cat([y[:1], y[1:] * 1.05]), 'is wrong: it differs by'),
    (lambda y: y[:, :3], 'is wrong: it is (2, 3, 5, 6)'),
    (lambda y: y.double(), 'of torch.float64'),
    (lambda y: (y, y), 'ValueError')])
def test_a_broken_kernel_is_named_and_not_used(dtype, result, reason, folder, said, monkeypatch):
    operator = Operator(monkeypatch, result=result)
    assert operator.choose(dtype) == operator.choose(dtype) == 'torch'
    line, = said
    assert line.startswith('double') and reason in line and "PyTorch's operator runs" in line and '\n' not in line
    assert operator.calls.count('triton') == 1
    assert not folder.exists()  # the next process tries again: the reason may be gone


@pytest.mark.parametrize('dtype, error', [(torch.float32, 1e-3), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_rounding_is_no_fault(dtype, error, monkeypatch):
    assert Operator(monkeypatch, result=lambda y: y * (1 + error)).choose(dtype) == 'triton'


@pytest.mark.parametrize('content', [
    b'', b'{', b'[1, 2]', b'null', b'\xff\xfe', b'{"a": 1}', b'{"a": {"torch": "fast", "triton": null}}',
    b'{"a": {"torch": 1}}', b'[' * 100_000], ids=lambda content: content[:12])
def test_a_damaged_file_is_written_anew(content, folder, monkeypatch):
    folder.mkdir()
    file = trial._file(trial._environment(None))
    file.write_bytes(content)
    operator = Operator(monkeypatch)
    assert operator.choose() == 'triton' and operator.calls
    assert list(json.loads(file.read_text()).values()) == [operator.ms]
    assert list(folder.iterdir()) == [file] and stat.S_IMODE(file.stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize('obstacle', ['a file for a folder', 'a folder for a file', 'no home', 'a full disk'])
def test_nowhere_to_write(obstacle, folder, monkeypatch):
    if obstacle == 'a file for a folder':
        folder.write_text('')
    elif obstacle == 'a folder for a file':
        trial._file(trial._environment(None)).mkdir(parents=True)
    elif obstacle == 'no home':
        monkeypatch.delenv('XDG_CACHE_HOME')
        monkeypatch.setattr(Path, 'expanduser', lambda path: (_ for _ in ()).throw(RuntimeError('no home directory')))
    else:
        monkeypatch.setattr(json, 'dump', lambda *_, **__: (_ for _ in ()).throw(OSError('no space left on device')))
    operator = Operator(monkeypatch)
    assert operator.choose() == operator.choose() == 'triton' and operator.calls == ['triton', 'torch']


def test_processes_add_to_one_file(folder, monkeypatch):
    operator = Operator(monkeypatch)
    operator.choose()
    other = trial._tables.copy()
    trial._tables.clear()
    file, = folder.iterdir()
    file.unlink()  # as for a process that began before the first wrote
    operator.choose(torch.bfloat16)
    trial._tables.update(other)
    operator.choose(torch.float16)
    assert [use.split()[1] for use in json.loads(file.read_text())] == ['torch.bfloat16', 'torch.float32',
                                                                        'torch.float16']


def test_no_trial_while_a_graph_is_captured_or_compiled(folder, monkeypatch):
    operator = Operator(monkeypatch)
    assert operator.choose(may_try=False) == 'torch'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)
    assert operator.choose() == 'torch' and not operator.calls and not verdicts('cpu')
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: False)
    assert operator.choose() == 'triton'
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)
    assert operator.choose() == operator.choose(may_try=False) == 'triton'


def test_what_is_tried_apart(monkeypatch):
    def use(shape=SHAPE, kernels=(1, 4, 3, 3), name='double', dtype=torch.float32,
            memory_format=torch.contiguous_format):
        return trial._use(name, torch.zeros(shape, dtype=dtype).to(memory_format=memory_format), torch.zeros(kernels))

    assert use() == use((1, 4, 6, 6)) == use((7, 4, 3, 2))  # 32 to 63 positions
    others = [use((2, 4, 8, 8)), use(kernels=(1, 4, 7, 7)), use(kernels=(2, 4, 3, 3)), use((2, 8, 5, 6), (1, 8, 3, 3)),
              use(dtype=torch.float16), use(memory_format=torch.channels_last), use(name='triple')]
    assert len({use(), *others}) == 1 + len(others)


def test_a_trial_draws_no_random_numbers_of_the_training(monkeypatch):
    before = torch.get_rng_state()
    Operator(monkeypatch).choose()
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------------------------------------------
# With the operators
# ---------------------------------------------------------------------------------------------------
@pytest.fixture
def kernels(monkeypatch):
    """The Triton kernels, in the interpreter where there is no GPU, and how often each was called."""
    test_triton = pytest.importorskip('test_triton', reason='Triton is missing')
    module = test_triton.kernels
    if test_triton.DEVICE == 'cpu':
        monkeypatch.setenv('TRITON_INTERPRET', '1')
        test_triton._mend_interpreter(monkeypatch)
    config = test_triton.triton.Config(dict(most_rows=4, COLS=3, LANE=1))
    monkeypatch.setattr(module._forward_kernel, 'configs', [config])
    module.calls, module.device = [], test_triton.DEVICE

    def count(name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: module.calls.append(name) or function(*args))

    for operator in ('depthwise', 'inhomogeneous'):
        count(f'{operator}_forward')
        count(f'{operator}_backward_input')
    return module


def times(monkeypatch, torch: float, triton: float) -> None:
    monkeypatch.setattr(trial, '_milliseconds', lambda call, device: dict(torch=torch, triton=triton)[call.args[-1]])


OPERATORS = {
    'static': (depthwise_conv2d, (4, 1, 3, 3)), 'dynamic': (dynamic_depthwise_conv2d, (2, 4, 3, 3)),
    'inhomogeneous': (inhomogeneous_depthwise_conv2d, (2, 2, 3, 3, 5, 6))}
every_operator = pytest.mark.parametrize('function, kernel', OPERATORS.values(), ids=OPERATORS)


def run(call, x, weight) -> list[torch.Tensor]:
    """Output and gradients."""
    inputs = [t.clone().requires_grad_() for t in (x, weight)]
    y = call(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, torch.ones_like(y))]


def check(results, expected) -> None:
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@every_operator
@pytest.mark.parametrize('faster', ['torch', 'triton'])
def test_forward_and_backward_are_tried_and_run(faster, function, kernel, kernels, monkeypatch):
    times(monkeypatch, **{'torch': 2., 'triton': 2., faster: 1.})
    x, weight = torch.randn(SHAPE, device=kernels.device), torch.randn(kernel, device=kernels.device)
    assert choose_backend(x)[0] == 'auto'
    expected = run(lambda *inputs: function(*inputs, backend='torch'), x, weight)
    assert not kernels.calls
    for _ in range(2):
        check(run(function, x, weight), expected)
    assert [verdict.backend for verdict in verdicts(x.device).values()] == [faster] * 2
    assert len(kernels.calls) == (2 + 4 if faster == 'triton' else 2)  # trials, and two runs


@every_operator
def test_a_compiled_graph_goes_by_the_table(function, kernel, kernels, monkeypatch):
    times(monkeypatch, torch=2., triton=1.)
    x, weight = torch.randn(SHAPE, device=kernels.device), torch.randn(kernel, device=kernels.device)
    expected = run(lambda *inputs: function(*inputs, backend='torch'), x, weight)
    compiled = torch.compile(function, backend='aot_eager', fullgraph=True, dynamic=True)
    check(run(compiled, x, weight), expected)
    assert not verdicts(x.device) and not kernels.calls  # nothing was tried
    run(function, x, weight)
    before = len(kernels.calls)
    check(run(compiled, x, weight), expected)
    assert len(kernels.calls) == before + 2


@pytest.mark.parametrize('fault', ['forward', 'backward', 'compiler'])
def test_the_network_runs_with_a_broken_kernel(fault, kernels, said, monkeypatch):
    times(monkeypatch, torch=2., triton=1.)
    name = 'depthwise_backward_input' if fault == 'backward' else 'depthwise_forward'
    good = getattr(kernels, name)
    monkeypatch.setattr(kernels, name, lambda *args: fail(args) if fault == 'compiler' else good(*args) * 1.1)
    x, weight = torch.randn(SHAPE, device=kernels.device), torch.randn(4, 1, 3, 3, device=kernels.device)
    expected = run(lambda *inputs: depthwise_conv2d(*inputs, backend='torch'), x, weight)
    for _ in range(2):
        check(run(depthwise_conv2d, x, weight), expected)
    line, = said
    assert ('fails' if fault == 'compiler' else 'is wrong') in line and ('backward' in line) == (fault == 'backward')


def test_a_trial_within_recomputation_and_autocast(kernels, monkeypatch):
    """It saves nothing for the backward pass, and takes the dtype that autocast chose."""
    times(monkeypatch, torch=2., triton=1.)
    x, weight = torch.randn(SHAPE, device=kernels.device), torch.randn(4, 1, 3, 3, device=kernels.device)
    expected = run(lambda *inputs: depthwise_conv2d(*inputs, backend='torch'), x, weight)
    check(run(lambda *inputs: checkpoint(depthwise_conv2d, *inputs, use_reentrant=False), x, weight), expected)
    with torch.autocast(kernels.device, torch.bfloat16), torch.inference_mode():
        depthwise_conv2d(x, weight)
    assert [use.split()[1] for use in verdicts(x.device)] == ['torch.float32', 'torch.float32', 'torch.bfloat16']


def test_fake_tensors_are_not_tried(kernels):
    with FakeTensorMode():
        y = depthwise_conv2d(torch.empty(SHAPE, device=kernels.device), torch.empty(4, 1, 3, 3, device=kernels.device))
    assert y.shape == SHAPE and not verdicts(kernels.device) and not kernels.calls
