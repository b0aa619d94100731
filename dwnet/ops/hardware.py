"""What this CPU or GPU can do, asked of PyTorch when it matters. Whatever has a faster form asks here first.

Each answer is a reason that can be read; an empty one means that nothing stands in the way.
"""
import functools
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from packaging.version import Version

TRITON = '3.6'  # that of the oldest PyTorch with which the kernels were tested


def cpu_features() -> tuple[str, ...]:
    """The vector and matrix units of the CPU that matter here: of AVX2, AVX-512 and AMX."""
    asked = {'AVX2': '_is_avx2_supported', 'AVX-512': '_is_avx512_supported', 'AMX': '_is_amx_tile_supported'}
    return tuple(name for name, function in asked.items() if getattr(torch.cpu, function, bool)())  # private, may go


def slower_than_float32(dtype: torch.dtype, device: str = 'cpu') -> str:
    """Why computing in bfloat16 or float16 takes longer than in float32, or nothing where it pays.

    Measured for matrix products on one Xeon whose units were switched off in turn: bfloat16 takes 0.2 times as long as
    float32 with AMX, 1.5 to 5 times with AVX-512, 90 times without; float16 as long with AVX-512's float16, else 70
    times.
    """
    if device == 'cuda':
        old = dtype == torch.bfloat16 and not torch.version.hip and torch.cuda.get_device_capability() < (8, 0)
        return 'the GPU is older than Ampere' if old else ''
    if not torch.backends.mkldnn.is_available():
        return 'this PyTorch has no oneDNN'
    name = 'bf16' if dtype == torch.bfloat16 else 'fp16'
    # what oneDNN says counts: a virtual machine, or ONEDNN_MAX_CPU_ISA, may hide what the processor has
    if not getattr(torch.ops.mkldnn, f'_is_mkldnn_{name}_supported', bool)():
        return 'no AMX or AVX-512' if dtype == torch.bfloat16 else 'no AVX-512 for float16'
    if dtype == torch.bfloat16 and 'AVX-512' in cpu_features() and 'AMX' not in cpu_features():
        return 'no AMX'
    return ''


def no_triton(device: str, index: int | None, dtype: torch.dtype) -> str:
    """Why the Triton kernels cannot run, or nothing."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f'there is no kernel for {dtype}'
    interpreted = os.environ.get('TRITON_INTERPRET') == '1'
    if device != ('cpu' if interpreted else 'cuda'):
        return 'the interpreter works on the CPU' if interpreted else f'x is on the {device}'
    # ROCm's numbers count something else
    if not interpreted and not torch.version.hip and torch.cuda.get_device_capability(index) < (8, 0):
        return 'the GPU is older than Ampere'
    return _triton_problem(interpreted)


# what torch.compiler.assume_constant_result does, less its import of the whole compiler, which takes 1.5 s
no_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _triton_problem(interpreted: bool) -> str:
    """Why Triton cannot compile on this machine, or nothing."""
    try:
        import triton
    except Exception as error:  # a broken installation may raise anything
        return f'triton cannot be imported ({type(error).__name__})'
    if Version(triton.__version__) < Version(TRITON):
        return f'triton {triton.__version__} is older than {TRITON}'
    if interpreted:
        return ''
    # it compiles its launcher with them
    compiler = os.environ.get('CC')
    if not (shutil.which(compiler) if compiler else shutil.which('gcc') or shutil.which('clang')):
        return 'triton needs a C compiler: gcc, clang, or what CC names'
    scheme = sysconfig.get_default_scheme().replace('posix_local', 'posix_prefix')
    if not Path(sysconfig.get_paths(scheme)['include'], 'Python.h').is_file():
        return "triton needs Python's headers, Python.h (Debian: python3-dev)"
    return ''
