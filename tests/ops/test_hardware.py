"""What the CPU or GPU can do, with each answer of PyTorch faked, so that every machine proves all of them."""
import shutil
import sys
import sysconfig
from types import SimpleNamespace

import pytest
import torch

from dwnet.commands import doctor
from dwnet.ops import choose_backend, hardware

FLAGS = {'AVX2': '_is_avx2_supported', 'AVX-512': '_is_avx512_supported', 'AMX': '_is_amx_tile_supported'}
# Units of the processor → bfloat16 and float16 in oneDNN, and why they are slower than float32
CPUS = {
    'none': ((), False, False, 'no AMX or AVX-512', 'no AVX-512 for float16'),
    'AVX2': (('AVX2', ), False, False, 'no AMX or AVX-512', 'no AVX-512 for float16'),
    'AVX-512': (('AVX2', 'AVX-512'), True, False, 'no AMX', 'no AVX-512 for float16'),
    'AMX': (('AVX2', 'AVX-512', 'AMX'), True, True, '', ''),
    'AMX that oneDNN may not use': (('AVX2', 'AVX-512', 'AMX'), False, False, 'no AMX or AVX-512',
                                    'no AVX-512 for float16'),
    'no x86': ((), True, True, '', '')}


def pretend(monkeypatch, units: tuple[str, ...], bf16: bool, fp16: bool) -> None:
    for unit, function in FLAGS.items():
        monkeypatch.setattr(torch.cpu, function, lambda unit=unit: unit in units)
    for name, answer in (('bf16', bf16), ('fp16', fp16)):
        monkeypatch.setattr(torch.ops.mkldnn, f'_is_mkldnn_{name}_supported', lambda answer=answer: answer)
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: True)


@pytest.mark.parametrize('units, bf16, fp16, bfloat16, float16', CPUS.values(), ids=CPUS)
def test_what_a_cpu_can_do(units, bf16, fp16, bfloat16, float16, monkeypatch):
    pretend(monkeypatch, units, bf16, fp16)
    assert hardware.cpu_features() == units
    assert hardware.slower_than_float32(torch.bfloat16) == bfloat16
    assert hardware.slower_than_float32(torch.float16) == float16
    said = {finding.subject: finding.state for finding in doctor._capabilities('cpu')}
    assert said == {'vector units': ', '.join(units) or 'neither AVX2 nor AVX-512',
                    'bfloat16': f'{bfloat16}, slower than float32' if bfloat16 else 'no slower than float32',
                    'float16': f'{float16}, slower than float32' if float16 else 'no slower than float32'}


def test_a_pytorch_that_cannot_be_asked(monkeypatch):
    """The functions are private to PyTorch: without them, no unit is known."""
    for function in FLAGS.values():
        monkeypatch.delattr(torch.cpu, function, raising=False)
    monkeypatch.setattr(torch.ops, 'mkldnn', SimpleNamespace())
    assert hardware.cpu_features() == ()
    assert hardware.slower_than_float32(torch.bfloat16)
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    assert hardware.slower_than_float32(torch.bfloat16) == 'this PyTorch has no oneDNN'


@pytest.mark.parametrize('capability, hip, bfloat16', [
    ((7, 0), None, 'the GPU is older than Ampere'), ((9, 0), None, ''), ((7, 0), '6.2', '')])
def test_what_a_gpu_can_do(capability, hip, bfloat16, monkeypatch):
    monkeypatch.setattr(torch.version, 'hip', hip)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda index=None: capability)
    assert hardware.slower_than_float32(torch.bfloat16, 'cuda') == bfloat16
    assert hardware.slower_than_float32(torch.float16, 'cuda') == ''


@pytest.mark.parametrize('broken, message', [
    ('capability', 'older than Ampere'), ('version', 'triton 3.2.0 is older than 3.6'),
    ('import', 'cannot be imported'), ('compiler', 'needs a C compiler'), ('headers', 'Python.h'), ('dtype', 'float64'),
    ('device', 'x is on the xpu')])
def test_a_gpu_on_which_triton_cannot_compile(broken, message, monkeypatch):
    """The network runs there all the same, by torch's own operators."""
    hardware._triton_problem.cache_clear()
    triton = SimpleNamespace(__version__='3.2.0' if broken == 'version' else '3.6.0')
    monkeypatch.setitem(sys.modules, 'triton', None if broken == 'import' else triton)
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    monkeypatch.delenv('CC', raising=False)
    monkeypatch.setattr(torch.version, 'hip', None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda i: (7, 0) if broken == 'capability' else (9, 0))
    monkeypatch.setattr(shutil, 'which', lambda name: None if broken == 'compiler' else f'/usr/bin/{name}')
    monkeypatch.setattr(sysconfig, 'get_paths', lambda scheme: dict(include='/nowhere'))
    dtype = torch.float64 if broken == 'dtype' else torch.bfloat16
    try:
        assert message in hardware.no_triton('xpu' if broken == 'device' else 'cuda', 0, dtype)
    finally:
        hardware._triton_problem.cache_clear()


def test_the_doctor_on_a_gpu_without_triton(monkeypatch):
    """As with PyTorch for Windows."""
    hardware._triton_problem.cache_clear()
    empty = torch.empty
    monkeypatch.setitem(sys.modules, 'triton', None)
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda index=None: (9, 0))
    monkeypatch.setattr(torch, 'empty', lambda *shape, device: SimpleNamespace(
        device=SimpleNamespace(type=device, index=0), dtype=empty(0).dtype))
    try:
        said = {finding.subject: finding.state for finding in doctor._capabilities('cuda')}
    finally:
        hardware._triton_problem.cache_clear()
    assert 'by torch: triton cannot be imported' in said['depth-wise operators']


def test_rocm_is_not_asked_for_nvidias_numbers(monkeypatch):
    """ROCm reports devices as cuda. A trial decides as on any GPU; nothing else lets a kernel run."""
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    monkeypatch.setattr(torch.version, 'hip', '6.2')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda i: (1, 0))
    monkeypatch.setattr(hardware, '_triton_problem', lambda interpreted: '')
    assert hardware.no_triton('cuda', 0, torch.bfloat16) == ''


def test_where_triton_can_run_the_choice_is_tried(monkeypatch):
    monkeypatch.setattr('dwnet.ops.depthwise.no_triton', lambda *_: '')
    x = torch.rand(1, 2, 3, 3)
    assert choose_backend(x)[0] == 'auto' and choose_backend(x, 'triton') == ('triton', 'asked for')
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    assert choose_backend(x) == ('known', 'a compiled graph tries nothing')


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_the_operators_run_in_every_precision_of_this_cpu(dtype):
    """Asked of the machine itself: under ``ONEDNN_MAX_CPU_ISA=AVX2``, too, which is how to try an older one."""
    from dwnet import DWNet
    model = DWNet(dict(embed_dims=32, depths=(1, 1, 1, 1)), 'inhomogeneous').eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        model.switch_to_deploy()
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            for ours, theirs in zip(model(x), expected, strict=True):
                assert ours.dtype == dtype and (ours - theirs).norm() <= 8 * torch.finfo(dtype).eps * theirs.norm()
