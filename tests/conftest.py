import contextlib
import functools
import gc
import importlib
import io
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mmengine.config.utils
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

import dwnet  # noqa: F401  before the toolboxes

# comparisons to 1e-5 need the whole of float32 on GPUs, too
torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

# Autograd looks for devices once, at a process's first backward pass. Where torch is built for CUDA and has no GPU, it
# finds one if a graph was recorded before, because fake tensors register a device. Then no backward pass works in the
# processes that tests fork.
if not torch.cuda.is_available():
    torch.ones(1, requires_grad=True).sum().backward()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts its background jobs so; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Each config on a base of a toolbox reads all of the toolbox's lists of models.
mmengine.config.utils._get_cfg_metainfo = functools.cache(mmengine.config.utils._get_cfg_metainfo)

ROOT = Path(__file__).resolve().parent.parent
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='waits for a C++ compiler, which torch.compile calls')
DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    """Runs a test on the CPU and, if there is one, on the GPU."""
    return request.param


def pytest_collection_finish() -> None:
    """mmengine's data sets collect garbage when they are loaded: not among all that is imported, again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    """Paths in the configs are relative to the clone."""
    monkeypatch.chdir(ROOT)
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def small_digits(tmp_path_factory) -> Path:
    """Digits data of a few dozen scenes."""
    from dwnet.demo import digits
    root = tmp_path_factory.mktemp('data') / 'digits'
    digits.prepare(root, digits.DigitsConfig(renderings=1, train_scenes=24, test_scenes=9), show_progress=False)
    return root


def read_config(path: str) -> Config:
    """A config whose toolbox is imported and in scope, so that its parts can be built."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    importlib.import_module(f'{cfg.default_scope}.models')
    return cfg


def is_recipe(config: str) -> bool:
    """Whether a config is a recipe of a toolbox around DWNet, and not of the paper or of the embedded digits."""
    return 'a recipe, not trained' in Path(config).read_text()


def run_tool(tool: str, *arguments) -> subprocess.CompletedProcess:
    """Runs a command line of ``tools/`` in this process, which saves the imports of a fresh one."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv, sys.argv = sys.argv, [tool, *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(tool, run_name='__main__')
    except SystemExit as error:
        code = error.code
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess([tool, *arguments], code, out.getvalue(), err.getvalue())


def run_python(*arguments, check: bool = True, **environment) -> subprocess.CompletedProcess:
    """Runs Python in a fresh process in the clone's root; its output is captured as text."""
    return run_command(sys.executable, '-W', 'ignore', *arguments, check=check, **environment)


def run_command(*command, check: bool = True, **environment) -> subprocess.CompletedProcess:
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '200', **environment}
    done = subprocess.run([str(c) for c in command], cwd=ROOT, env=env, text=True, capture_output=True)
    assert not check or done.returncode == 0, f'{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    return done
