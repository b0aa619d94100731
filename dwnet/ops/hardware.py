"""What this CPU or GPU can do. Code with a faster form for some hardware asks here before using that form.

Each answer is a reason against the faster form, for people to read; an empty answer means that the form can be used.
"""
import functools
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from packaging.version import Version

TRITON = '3.6'  # comes with the oldest PyTorch with which the kernels were tested


def cpu_features() -> tuple[str, ...]:
    """Which of AVX2, AVX-512 and AMX the CPU has."""
    asked = {'AVX2': '_is_avx2_supported', 'AVX-512': '_is_avx512_supported', 'AMX': '_is_amx_tile_supported'}
    return tuple(name for name, function in asked.items() if getattr(torch.cpu, function, bool)())  # private API


def slower_than_float32(dtype: torch.dtype, device: str = 'cpu') -> str:
    """Why bfloat16 or float16 is slower than float32 on this device; empty where it is faster.

    Measured for matrix products on one Xeon with its units switched off in turn: bfloat16 takes 0.2 times as long as
    float32 with AMX, 1.5 to 5 times with AVX-512, 90 times without either. float16 takes as long as float32 with
    AVX-512's float16, 70 times as long without.
    """
    if device == 'cuda':
        old = dtype == torch.bfloat16 and not torch.version.hip and torch.cuda.get_device_capability() < (8, 0)
        return 'the GPU is older than Ampere' if old else ''
    if not torch.backends.mkldnn.is_available():
        return 'this PyTorch has no oneDNN'
    name = 'bf16' if dtype == torch.bfloat16 else 'fp16'
    # ask oneDNN, not the processor: a virtual machine or ONEDNN_MAX_CPU_ISA may hide units
    if not getattr(torch.ops.mkldnn, f'_is_mkldnn_{name}_supported', bool)():
        return 'no AMX or AVX-512' if dtype == torch.bfloat16 else 'no AVX-512 for float16'
    if dtype == torch.bfloat16 and 'AVX-512' in cpu_features() and 'AMX' not in cpu_features():
        return 'no AMX'
    return ''


def no_triton(device: str, index: int | None, dtype: torch.dtype) -> str:
    """Why the Triton kernels cannot run on this device and dtype; empty if they can."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f'there is no kernel for {dtype}'
    interpreted = os.environ.get('TRITON_INTERPRET') == '1'
    if device != ('cpu' if interpreted else 'cuda'):
        return 'the interpreter works on the CPU' if interpreted else f'x is on the {device}'
    # ROCm's capability numbers mean something else
    if not interpreted and not torch.version.hip and torch.cuda.get_device_capability(index) < (8, 0):
        return 'the GPU is older than Ampere'
    return _triton_problem(interpreted)


# as torch.compiler.assume_constant_result does, without importing the whole compiler, which takes 1.5 s
no_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _triton_problem(interpreted: bool) -> str:
    """Why Triton cannot compile on this machine; empty if it can."""
    try:
        import triton
    except Exception as error:  # a broken installation may raise anything
        return f'triton cannot be imported ({type(error).__name__})'
    if Version(triton.__version__) < Version(TRITON):
        return f'triton {triton.__version__} is older than {TRITON}'
    if interpreted:
        return ''
    # Triton compiles its launcher with a C compiler and Python's headers
    compiler = os.environ.get('CC')
    if not (shutil.which(compiler) if compiler else shutil.which('gcc') or shutil.which('clang')):
        return 'triton needs a C compiler: gcc, clang, or what CC names'
    scheme = sysconfig.get_default_scheme().replace('posix_local', 'posix_prefix')
    if not Path(sysconfig.get_paths(scheme)['include'], 'Python.h').is_file():
        return "triton needs Python's headers, Python.h (Debian: python3-dev)"
    return ''
