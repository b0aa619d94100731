"""The demo: trains and scores all three tasks on the embedded digits.

Detection and segmentation start from the demo's classification weights, as real trainings start from ImageNet
weights; on a CPU both train at the same time. Each step runs the command that a user would type.
"""
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from dwnet.config_names import config_path
from dwnet.errors import UserError
from dwnet.toolboxes import SCORE_NAMES

from . import digits
from .report import write_report
from .tasks import TASKS, Task


def last_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a finished training."""
    return Path((folder / 'last_checkpoint').read_text())


_children: set[subprocess.Popen] = set()
_reading = threading.Lock()  # reading a config uses pkg_resources, which is not thread-safe


def _run(tool: str, *arguments: str | Path, beside: str = '') -> None:
    """Runs a command. With ``beside`` the command uses half of the cores, and its lines begin with that name."""
    command = [sys.executable, '-W', 'ignore', '-m', 'dwnet', tool, *map(str, arguments)]
    if beside:
        environment = {'OMP_NUM_THREADS': str(_cores() // 2), **os.environ, 'PYTHONUNBUFFERED': '1'}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors='replace') as process:
            _children.add(process)
            for line in process.stdout:
                print(f'{beside}: {line}', end='', flush=True)
        _children.remove(process)
        code = process.returncode
    else:
        code = subprocess.run(command).returncode
    if code:
        raise UserError(f'python -m dwnet {tool} ended with exit code {code}; run the demo again to go on from where '
                        'it was')


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _checksum(path: Path | None) -> int:
    return zlib.crc32(path.read_bytes()) if path is not None and path.is_file() else 0


def read_json(path: Path) -> Any:
    """The file's content; None if the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix('.unfinished')
    beside.write_text(json.dumps(content, indent=1))
    os.replace(beside, path)


def run_task(task: Task, folder: Path, pretrained: Path | None, quick: bool, beside: bool = False) -> dict:
    """Trains and tests one task in ``folder``, and reuses the results of an earlier run.

    Args:
        task: The task.
        folder: The task's folder.
        pretrained: Weights for the backbone to start from.
        quick: Train briefly.
        beside: Another task is running at the same time.

    Returns:
        ``scores``, all metrics by the toolbox's names, and ``seconds``, the time of all runs together.
    """
    # Reading such small images is fast, and on a CPU data workers would take cores from the network.
    options = ['log_level=ERROR', *(f'{part}_dataloader.{setting}' for part in ('train', 'test')
                                    for setting in ('num_workers=0', 'persistent_workers=False'))]
    test_options, options = options, [*options, 'train_cfg.val_begin=1000']  # no validation: the test follows
    if quick:
        options.append(f'train_cfg.max_epochs={task.quick_epochs}')
    if task.pretrained:
        options += ['model.backbone.init_cfg.type=Pretrained',
                    f'model.backbone.init_cfg.checkpoint={pretrained}']
    with _reading:
        config = Config.fromfile(config_path(task.config)).pretty_text
    signature = dict(
        config=config,
        options=options,
        data=_checksum(digits.ROOT / 'manifest.json'),
        pretrained=_checksum(pretrained))
    if read_json(folder / 'signature.json') != signature:  # the folder is of another config or other data
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / 'signature.json', signature)
    if result := read_json(folder / 'result.json'):
        return result

    start = time.monotonic()
    spent = read_json(folder / 'seconds.json') or 0  # in interrupted runs
    try:
        resume = ['--resume'] if (folder / 'last_checkpoint').is_file() else []
        name = task.name if beside else ''
        _run('train', task.config, '--work-dir', folder, *resume, '--cfg-options', *options, beside=name)
        checkpoint = last_checkpoint(folder)
        _run('test', task.config, checkpoint, '--work-dir', folder / 'test', '--cfg-options', *test_options,
             beside=name)
    finally:
        spent += time.monotonic() - start
        write_json(folder / 'seconds.json', spent)
    scores = json.loads((folder / 'test' / 'scores.json').read_text())
    result = dict(scores=scores, seconds=spent, checkpoint=str(checkpoint))
    write_json(folder / 'result.json', result)
    return result


def run(work_dir: str | os.PathLike = 'work_dirs/demo', quick: bool = False) -> dict[str, dict]:
    """Runs the demo, and skips tasks that an earlier run finished.

    Args:
        work_dir: Folder for all outputs.
        quick: Train too briefly for meaningful scores, only to show that all parts work.

    Returns:
        The result of each task, see :func:`run_task`.
    """
    console = Console()
    work_dir = Path(work_dir).resolve()
    digits.prepare(digits.ROOT)

    def train(task: Task, pretrained: Path | None = None, beside: bool = False) -> dict:
        console.rule(f'{task.name}: {task.config}')
        return run_task(task, work_dir / task.name, pretrained, quick, beside)

    first, *others = TASKS
    results = {first.name: train(first)}
    pretrained = Path(results[first.name]['checkpoint'])
    # Such small networks gain little from a second thread, so on a CPU the other two tasks share the cores.
    at_once = 1 if torch.cuda.is_available() or _cores() < 2 else len(others)
    with ThreadPoolExecutor(at_once) as pool:
        running = {task.name: pool.submit(train, task, pretrained, at_once > 1) for task in others}
        try:
            wait(running.values())
        except BaseException:  # Ctrl-C, which a terminal also sends to the trainings
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_children):
                process.terminate()  # a training saves a checkpoint at SIGTERM
            raise
    results |= {name: result.result() for name, result in running.items()}

    report = write_report(work_dir, results)
    table = Table('task', 'metric', 'score', 'seconds')
    for task in TASKS:
        result = results[task.name]
        for i, key in enumerate(task.scores):
            table.add_row(task.name if i == 0 else '', SCORE_NAMES[key], f"{result['scores'][key]:g}",
                          f"{result['seconds']:.0f}" if i == 0 else '')
    console.print(table)
    console.print(f'report: {report}', soft_wrap=True)
    shown = TASKS[1]
    command = shlex.join(['serve', '--config', shown.config, '--checkpoint', results[shown.name]['checkpoint']])
    console.print(f'in a browser: {sys.executable} -m dwnet {command}', soft_wrap=True, markup=False, highlight=False)
    return results
