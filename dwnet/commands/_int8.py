"""The int8 part of the export command: quantises an exported file, and shows scores, sizes and speeds of both."""
import copy
import os
import statistics
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from rich.console import Console
from rich.table import Table
from torch import nn

from dwnet.demo.embedded import prepare_if_missing
from dwnet.deploy.export import SUFFIXES, export
from dwnet.deploy.exported import with_exported
from dwnet.deploy.kept_layers import hold_score
from dwnet.deploy.quantise import quantiser
from dwnet.deploy.runtimes import open_exported
from dwnet.deploy.trial_images import as_input, of_data
from dwnet.engine import Runner
from dwnet.engine.preflight import check_data
from dwnet.errors import UserError
from dwnet.toolboxes import SCORE_NAMES, toolbox_of

from ._arguments import check_writable

MAX_DROP = .5  # points
CALIBRATION = 300  # images
RUNS = 21  # of each file, in turn, for the speeds


def check_int8(args: Namespace) -> None:
    """Refuses options of the export command that do not go together.

    Raises:
        UserError: If there are such options, or a number is out of range.
    """
    if not args.int8:
        for option, value in (('--max-drop', args.max_drop), ('--calibration', args.calibration)):
            if value is not None:
                raise UserError(f'{option} is for --int8')
        return
    if args.to == 'torch':
        raise UserError('--int8 is for --to onnx and --to openvino')
    if args.half:
        raise UserError('--int8 and --half exclude each other')
    if args.backbone:
        raise UserError('--int8 is for whole models: a backbone has no score by which int8 could be judged; '
                        'dwnet.deploy.quantise.quantise writes an int8 file without a score')
    if args.calibration is not None and args.calibration < 1:
        raise UserError(f'--calibration must be 1 image or more, got {args.calibration}')
    if args.max_drop is not None and not args.max_drop >= 0:
        raise UserError(f'--max-drop must be 0 points or more, got {args.max_drop:g}')


def export_int8(model: nn.Module, cfg: Config, path: Path, to: str, calibration: int, max_drop: float) -> None:
    """Exports a model in float32 and in int8, and keeps the int8 file if its score holds.

    Args:
        model: The model.
        cfg: Its config, whose training images calibrate the int8 file, and whose test scores both files.
        path: The int8 file to write.
        to: ``'onnx'`` or ``'openvino'``.
        calibration: The most images for the calibration, evenly spaced in the data.
        max_drop: The most points that a score may fall.

    Raises:
        UserError: If data is missing, the model cannot be exported or quantised, or the score falls more.
    """
    if path.suffix != SUFFIXES[to]:
        raise UserError(f'{path}: the name of a file for {to} ends with {SUFFIXES[to]}')
    check_writable('--out', path.parent)
    check_data(cfg, 'train', 'test', prepare=prepare_if_missing)
    with tempfile.TemporaryDirectory(prefix='dwnet-int8-') as folder:
        whole = export(model, Path(folder, 'float32', path.name), to)
        images = [as_input([picture]).numpy() for picture in of_data(cfg, 'train', calibration)]
        small = Path(folder, 'int8', path.name)
        small.parent.mkdir()
        print_log(f'quantising with {len(images)} images of the training data …', 'current')
        before, after, kept = hold_score(quantiser(whole, images), small, lambda file: scores(cfg, file), max_drop)
        speeds = images_per_second([whole, small], images[0])
        _keep(small, path)
        _show(whole, path, before, after, speeds)
    print(f'{path}: int8' + (f', {len(kept)} layers in float32' if kept else ''))


def scores(cfg: Config, file: Path) -> dict[str, float]:
    """Score → points, by the config's metric on its test data.

    Raises:
        UserError: If the metric gives none of the scores that are known here.
    """
    toolbox, cfg = toolbox_of(cfg), copy.deepcopy(cfg)
    cfg.log_level = 'ERROR'
    with tempfile.TemporaryDirectory(prefix='dwnet-int8-') as folder:
        cfg.work_dir = folder
        metrics = Runner.from_cfg(with_exported(cfg, file)).test()
    found = {name: metrics[name] * (100 if name.startswith(toolbox.fractions) else 1)
             for name in SCORE_NAMES if name in metrics}
    if not found:
        raise UserError("int8 needs a score: the config's test_evaluator measures none of "
                        f"{', '.join(toolbox.scores)}")
    return found


def images_per_second(files: list[Path], image: np.ndarray) -> list[float]:
    """The speed of each file with one image at a time: medians of runs in turn."""
    runs = [open_exported(file).run for file in files]
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(RUNS):
        for run, times in zip(runs, seconds):
            start = time.perf_counter()
            run(image)
            times.append(time.perf_counter() - start)
    return [len(image) / statistics.median(times) for times in seconds]


def _files(path: Path) -> list[Path]:
    """An exported file, and the weights of OpenVINO beside it."""
    return [path, path.with_suffix('.bin')] if path.suffix == '.xml' else [path]


def _keep(small: Path, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='.export-', dir=path.parent) as folder:
            for file in _files(small):  # complete or not there
                Path(folder, file.name).write_bytes(file.read_bytes())
            for file in _files(path):
                os.replace(Path(folder, file.name), file)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}') from error


def _show(whole: Path, small: Path, before: dict[str, float], after: dict[str, float], speeds: list[float]) -> None:
    table = Table('', 'float32', 'int8', 'int8 − float32')
    for column in table.columns[1:]:
        column.justify = 'right'
    for name in before:
        table.add_row(SCORE_NAMES[name], f'{before[name]:.2f}', f'{after[name]:.2f}',
                      f'{after[name] - before[name]:+.2f} points')
    sizes = [sum(file.stat().st_size for file in _files(path)) / 2**20 for path in (whole, small)]
    table.add_row('size, MiB', *(f'{size:.1f}' for size in sizes), f'{sizes[1] / sizes[0]:.2f} ×')
    table.add_row('images a second, one at a time', *(f'{speed:.1f}' for speed in speeds),
                  f'{speeds[1] / speeds[0]:.2f} ×')
    Console().print(table)
