"""Reports what is installed, what is missing for which task, and what to do about it."""
import importlib.util
import os
import platform
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dwnet.errors import one_line

EXAMPLE = ''

DISTRIBUTIONS = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'timm', 'numpy', 'opencv-python',
                 'opencv-python-headless', 'pycocotools', 'scikit-learn', 'tifffile')
# Writes the OpenCV without windows over the files of the OpenCV with windows
HEADLESS = "pip install --force-reinstall --no-deps 'opencv-python-headless<5'"
CONSTRAINTS = ' -c constraints.txt' if Path('constraints.txt').is_file() else ''  # only a clone has the file


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was seen, and what to do if something is wrong."""
    subject: str
    state: str
    remedy: str = ''


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _major(version: str | None) -> int:
    match = re.match(r'\d+', version or '')
    return int(match[0]) if match else 0


def _import_error(module: str) -> str:
    """Why ``module`` cannot be imported, in a line; empty if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken package may raise anything
        return one_line(error)
    return ''


def examine() -> Iterator[Finding]:
    """Looks at the machine; yields a finding for everything that matters."""
    yield Finding('Python', f'{platform.python_version()} ({sys.executable})',
                  '' if sys.version_info >= (3, 10) else 'Python 3.10 or newer is needed')
    for name in DISTRIBUTIONS:
        if (version := _version(name)) is not None:
            yield Finding(name, version, _version_remedy(name, version))

    if error := _import_error('torch'):
        yield Finding('PyTorch', error, "pip install torch torchvision")
        return
    import torch
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding('device', ', '.join(devices) or f'CPU, {os.cpu_count()} cores')
    if os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '0') != '0':
        yield Finding('loading', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets files run code',
                      'unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    if _version('mmcv') and _version('mmcv-lite'):
        yield Finding('mmcv', 'both mmcv and mmcv-lite are installed and overwrite each other',
                      'pip uninstall mmcv mmcv-lite, then install one of them')

    if opencv := _opencv():
        yield opencv

    for module, remedy in (('torchvision', 'install the torchvision that belongs to this torch: pip install '
                            'torch==2.11.0 torchvision==0.26.0'), ('mmengine', 'pip install mmengine==0.10.7')):
        if error := _import_error(module):
            yield Finding(module, error, HEADLESS if lacks_display_library(error) else remedy)
            return
    if error := _import_error('mmcv'):
        yield Finding('mmcv', error, HEADLESS if lacks_display_library(error) else 'pip install mmcv-lite==2.1.0')
        return
    from dwnet.compat import mmcv_ops
    from dwnet.compat.mmcv_ops.ext import COVERED
    if mmcv_ops.in_use():
        yield Finding('mmcv operators', f"dwnet's stand-in, {len(COVERED)} functions "
                      '(docs/mmcv_operators.md)')
    else:
        yield Finding('mmcv operators', 'compiled, from mmcv')
    from dwnet.compat.mmcv_ops import hook
    yield Finding('start-up hook', hook.state(), '' if hook.is_current() or not hook.is_on() else
                  'written by another version: python -m dwnet hook on')

    yield from _capabilities('cuda' if devices else 'cpu')

    from dwnet.toolboxes import TOOLBOXES, timm_registration
    for toolbox in TOOLBOXES.values():
        # `import mmdet` alone imports little; mmdet.models imports nearly everything
        yield _usable(toolbox.task, f'{toolbox.name}.models', toolbox.distribution, toolbox.install_command)
    if _version('timm') and not timm_registration.timm_is_safe():
        yield Finding('timm', "it runs code from the files that it loads, so dwnet's models are not registered",
                      f"pip install 'timm>={timm_registration.TIMM}'")
    else:
        yield _usable('timm', 'timm', 'timm', lambda options='': f"pip install 'dwnet[timm]'{options}")

    from dwnet.demo import digits
    root = digits.ROOT
    if root.exists():
        whole = digits.is_complete(root)
        yield Finding('digits data', f'{root} is {"complete" if whole else "damaged"}',
                      '' if whole else 'python -m dwnet.demo.digits')


def _usable(task: str, module: str, distribution: str, install: Callable[..., str]) -> Finding:
    """Whether the package that does ``task`` is there and can be imported."""
    package = module.partition('.')[0]
    error = _import_error(module)
    if not error:
        return Finding(task, f'ready ({package} {_version(distribution)})')
    if f"No module named '{package}'" in error:
        return Finding(task, f'{package} is not installed', f'only if you need it: {install()}')
    return Finding(task, error, install(CONSTRAINTS))


def _capabilities(device: str) -> Iterator[Finding]:
    """What the CPU or GPU can do, and what follows for precision and operators."""
    import torch

    from dwnet.ops import choose_backend, hardware, verdicts
    if device == 'cpu':
        yield Finding('vector units', ', '.join(hardware.cpu_features()) or 'neither AVX2 nor AVX-512')
    for dtype in (torch.bfloat16, torch.float16):
        reason = hardware.slower_than_float32(dtype, device)
        yield Finding(str(dtype).removeprefix('torch.'),
                      f'{reason}, slower than float32' if reason else 'no slower than float32')
    if device == 'cuda':
        backend, reason = choose_backend(torch.empty(1, 1, 1, 1, device='cuda'))
        yield Finding('depth-wise operators', f'by {backend}: {reason}',
                      f'slower than by Triton: {reason}' if backend == 'torch' else '')
        for use, verdict in verdicts('cuda').items() if backend == 'auto' else ():  # else triton may be missing
            yield Finding('tried', f'{use}: {verdict.backend} runs, for the Triton kernel {verdict.reason}')


def _version_remedy(name: str, version: str) -> str:
    if name == 'opencv-python' and _major(version) >= 5:
        return "pip install 'opencv-python<5': masks are made of contours, which OpenCV 5 changed"
    if name in ('mmcv', 'mmcv-lite') and not version.startswith('2.1.'):
        return f'pip install {name}==2.1.0: the toolboxes refuse every other minor version'
    if name == 'torch' and tuple(int(n) for n in re.findall(r'\d+', version)[:2]) < (2, 6):
        return "pip install 'torch>=2.6': older ones run code from the files that they load"
    return ''


def _opencv() -> Finding | None:
    """A finding if both OpenCV packages are installed: mmengine requires opencv-python, grad-cam the headless one."""
    windowed, headless = _version('opencv-python'), _version('opencv-python-headless')
    if not windowed or not headless:
        return None
    both = f'opencv-python {windowed} and opencv-python-headless {headless} share the folder cv2'
    if _is_headless() and windowed == headless:
        return Finding('OpenCV', f'{both}, and the headless one was installed last')
    return Finding('OpenCV', f'{both}, and they are mixed, or the one that needs libraries of X was installed last',
                   HEADLESS.replace('<5', f'=={windowed}'))  # another version would leave files of both


def _is_headless() -> bool:
    """Whether cv2 is the headless package's; reads a file of cv2, since the import may fail."""
    found = importlib.util.find_spec('cv2')
    version = Path(found.origin).with_name('version.py') if found and found.origin else None
    return bool(version and version.is_file() and re.search(r'headless\s*=\s*True', version.read_text()))


def lacks_display_library(error: str) -> bool:
    """Whether an import failed because a library of X or OpenGL is missing, as on servers and in containers."""
    return bool(re.search(r'lib(xcb|X11|Xext|Xrender|SM|ICE|GL|EGL|glib|gthread)[-.\w]*\.so', error))


def add_arguments(parser: ArgumentParser) -> None:
    """The doctor has no arguments."""


def run(args: Namespace) -> None:
    """Prints the findings; the exit code is 1 if any finding has a remedy."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    findings = list(examine())
    table = Table('', 'what', 'state', show_header=False, box=None)
    for finding in findings:
        mark = '[yellow]![/]' if finding.remedy else '[green]✓[/]'
        table.add_row(mark, finding.subject, escape(finding.state))
    console = Console()
    console.print(table)
    problems = [f for f in findings if f.remedy]
    for finding in problems:
        console.print(f'[yellow]![/] {finding.subject}: ' + escape(finding.remedy))
    sys.exit(1 if problems else 0)
