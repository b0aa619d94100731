#!/usr/bin/env python
"""Trains one body with five token mixers on Fashion-MNIST, at equal depth, width, recipe and epochs, and compares them.

The mixers are static, dynamic and inhomogeneous depth-wise convolution, the local MLP, and window attention from
mmpretrain. Then the paper's two ablations in small, the size of the kernel and kernels shared between channels, and
static convolution in the residual block that attention has. What is finished is not done again, and what was
interrupted goes on where it was.
"""
import argparse
import gzip
import hashlib
import os
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for benchmarks.mixers

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.benchmark import Timer  # noqa: E402

import dwnet  # noqa: E402, F401
from benchmarks.mixers.report import write_report  # noqa: E402
from dwnet.demo.three_tasks import read_json, write_json  # noqa: E402
from dwnet.engine.distributed.process_group import end_with_parent  # noqa: E402
from dwnet.engine.exit_codes import run_command  # noqa: E402
from dwnet.engine.hooks.progress import ProgressLine  # noqa: E402
from dwnet.errors import UserError  # noqa: E402
from dwnet.inspect.curves import read_curve, read_run  # noqa: E402
from dwnet.inspect.flops import count  # noqa: E402

CONFIG = 'benchmarks/mixers/fashion_mnist.py'
BATCH_SIZE = 128  # of the config
DEBIAN = Path('/usr/share/datasets/fashion-mnist')  # of its package dataset-fashion-mnist
FILES = ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte', 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte')

SIZES = {
    'nano': dict(embed_dims=32, depths=(1, 1, 2, 1)),
    'half-tiny': dict(embed_dims=48, depths=(2, 2, 6, 2)),
    'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2)),
}
# Name → what differs from the backbone of the config.
MIXERS = {
    'static': dict(token_mixer='static'),
    'dynamic': dict(token_mixer='dynamic'),
    'inhomogeneous': dict(token_mixer='inhomogeneous'),
    'local MLP': dict(type='SwinBlockBody', mixer='local_mlp'),
    'window attention': dict(type='SwinBlockBody', mixer='attention'),
}
ABLATIONS = {
    'static, 3×3': dict(kernel_size=3),
    'static, 5×5': dict(kernel_size=5),
    'static, 9×9': dict(kernel_size=9),
    'static, a kernel for all channels': dict(token_mixer=dict(type='shared', share=0)),
    "static, in attention's block": dict(token_mixer='projected'),
}


def prepare_data(source: Path, folder: Path) -> None:
    """Unpacks Fashion-MNIST's four files from ``source`` into ``folder``.

    Raises:
        UserError: If a file is missing or cannot be unpacked.
    """
    for name in FILES:
        packed, plain, target = source / f'{name}.gz', source / name, folder / name
        if not packed.is_file() and not plain.is_file():
            raise UserError(f'{packed} is missing: `apt-get install dataset-fashion-mnist` on Debian, or name the '
                            'folder of the four files with --data')
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            content = gzip.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f'{packed} cannot be unpacked ({error}); get it again') from error
        if not target.is_file() or target.read_bytes() != content:
            target.write_bytes(content)


def options_of(variant: dict, args: argparse.Namespace) -> dict:
    """What a variant changes in the config, by the names of ``--cfg-options``."""
    arch = SIZES[args.size]
    options = {}
    for part, value in (variant | dict(arch=arch)).items():
        settings = {f'.{key}': setting for key, setting in value.items()} if isinstance(value, dict) else {'': value}
        options |= {f'model.backbone.{part}{key}': setting for key, setting in settings.items()}
    if variant.get('type') == 'SwinBlockBody':
        options['model.backbone.image_size'] = args.image_size
    options['model.head.in_channels'] = arch['embed_dims'] * 8
    for resize in ('train_dataloader.dataset.pipeline.2', 'val_dataloader.dataset.pipeline.0',
                   'test_dataloader.dataset.pipeline.0'):
        options[f'{resize}.scale'] = args.image_size
    options |= {f'{split}_dataloader.dataset.data_root': str(args.data_root) for split in ('train', 'val', 'test')}
    if args.images:
        options['train_dataloader.dataset.indices'] = args.images  # the first ones
    return options | {'train_cfg.max_epochs': args.epochs}


def config_of(variant: dict, args: argparse.Namespace) -> Config:
    cfg = Config.fromfile(str(ROOT / CONFIG))
    cfg.merge_from_dict(options_of(variant, args))
    init_default_scope(cfg.default_scope)
    return cfg


def folder_of(name: str, seed: int, args: argparse.Namespace) -> Path:
    return args.work_dir / f"{name.replace(', ', '-').replace(' ', '_')}-seed{seed}"


def start(variant: dict, seed: int, folder: Path, args: argparse.Namespace) -> subprocess.Popen | None:
    """Starts a training in ``folder``, by ``tools/train.py``, from where it was; None if it is finished.

    Raises:
        UserError: If the folder holds a training with other settings.
    """
    text = config_of(variant, args).pretty_text.replace(str(args.data_root), '')  # the same wherever the data are
    signature = dict(config=hashlib.sha256(text.encode()).hexdigest(), seed=seed, bf16=args.bf16)
    if not folder.is_dir():
        write_json(folder / 'signature.json', signature)
    elif read_json(folder / 'signature.json') != signature:
        raise UserError(f'{folder} is of another config or other settings: remove it, or name another --work-dir')
    if (folder / 'result.json').is_file():
        return None
    options = options_of(variant, args) | {'randomness.seed': seed, 'log_level': 'ERROR'}
    given = [f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
             for key, value in options.items()]
    command = [sys.executable, '-W', 'ignore', 'tools/train.py', CONFIG, '--work-dir', folder,
               '--resume', *['--bf16'] * args.bf16, '--cfg-options', *given]
    threads = max(1, torch.get_num_threads() // args.jobs)
    with open(folder / 'output.txt', 'a') as output:
        return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
                                env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': str(threads)},
                                # Ctrl-C reaches this process alone. If it ends, the training saves and ends, too
                                start_new_session=True, preexec_fn=end_with_parent)


def steps_done(folder: Path, steps: int) -> int:
    """How many of its ``steps`` the training in ``folder`` has done and logged."""
    try:
        return steps if (folder / 'result.json').is_file() else max(read_run(folder).training['loss'])
    except (UserError, KeyError):  # nothing yet
        return 0


def train(runs: dict[tuple[str, int], Path], args: argparse.Namespace) -> None:
    """Trains every variant and seed in its folder, ``--jobs`` at a time; what is finished stays as it is.

    A finished folder has a ``result.json``: ``top1`` after each epoch, and ``seconds``.

    Raises:
        UserError: If a training fails; the others save what they have and end.
    """
    images = (args.data_root / FILES[1]).stat().st_size - 8  # a label is a byte, behind a header
    steps = args.epochs * (min(args.images or images, images) // BATCH_SIZE)
    waiting, running = list(runs), {}
    counted = sum(steps_done(folder, steps) for folder in runs.values())
    with ProgressLine() as progress:
        progress.add('train', steps * len(runs), counted)
        try:
            while waiting or running:
                while waiting and len(running) < args.jobs:
                    name, seed = run = waiting.pop(0)
                    if process := start((MIXERS | ABLATIONS)[name], seed, runs[run], args):
                        running[run] = process, time.monotonic()
                time.sleep(.5)
                for (name, seed), (process, began) in list(running.items()):
                    if (code := process.poll()) is None:
                        continue
                    del running[name, seed]
                    finish(name, seed, runs[name, seed], code, time.monotonic() - began, args.epochs)
                done = sum(steps_done(folder, steps) for folder in runs.values())
                progress.advance('train', done - counted)
                counted = done
        finally:
            for process, _ in running.values():
                process.terminate()
            for (name, seed), (process, began) in running.items():
                process.wait()
                add_seconds(runs[name, seed], time.monotonic() - began)


def add_seconds(folder: Path, seconds: float) -> float:
    """Adds to the time that was spent in ``folder``; returns the sum."""
    seconds += read_json(folder / 'seconds.json') or 0
    write_json(folder / 'seconds.json', seconds)
    return seconds


def finish(name: str, seed: int, folder: Path, code: int, seconds: float, epochs: int) -> None:
    """Keeps and prints the result of a training that has ended."""
    seconds = add_seconds(folder, seconds)
    top1 = [] if code else read_curve(folder, 'accuracy/top1')[1]  # after each epoch
    if len(top1) != epochs:
        raise UserError(f"the training in {folder} ended with exit code {code}, see {folder / 'output.txt'}; the same "
                        'command goes on from there')
    write_json(folder / 'result.json', dict(top1=top1, seconds=seconds))
    print(f'{name}, seed {seed}: top-1 {top1[-1]:.2f} after {seconds:.0f} s', flush=True)


def measure_speed(variants: dict[str, dict], args: argparse.Namespace, rounds: int = 5) -> dict[str, dict]:
    """Images a second in inference (folded) and in training; the variants take turns, the median counts."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    images = torch.randn(BATCH_SIZE, 1, args.image_size, args.image_size, device=device)
    seconds: dict[str, dict[str, list[float]]] = {name: dict(inference=[], training=[]) for name in variants}
    steps = {name: _steps(variant, images, args) for name, variant in variants.items()}
    for _ in range(rounds):
        for name, (infer, learn) in steps.items():
            for mode, step in (('inference', infer), ('training', learn)):
                timer = Timer('step()', globals=dict(step=step), num_threads=torch.get_num_threads())
                seconds[name][mode].append(timer.blocked_autorange(min_run_time=.3).median)
    return {name: {mode: len(images) / statistics.median(taken) for mode, taken in modes.items()}
            for name, modes in seconds.items()}


def _steps(variant: dict, images: torch.Tensor, args: argparse.Namespace) -> tuple[Callable, Callable]:
    """One step of inference and one of training, both of the classifier on ``images``."""
    device, half = images.device.type, args.bf16
    labels = torch.zeros(len(images), dtype=torch.long, device=device)

    def build() -> nn.Module:
        return MODELS.build(config_of(variant, args).model).to(device)

    folded, learning = build().eval(), build().train()
    folded.backbone.switch_to_deploy()
    optimizer = torch.optim.AdamW(learning.parameters())

    def infer() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
            folded.head(folded.extract_feat(images))

    def learn() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            scores = learning.head(learning.extract_feat(images))
        nn.functional.cross_entropy(scores.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return infer, learn


def compare(args: argparse.Namespace) -> dict[str, dict]:
    """Everything: trainings, then parameters, multiply-adds and speed of each variant."""
    variants = MIXERS | ABLATIONS
    runs = {(name, seed): folder_of(name, seed, args) for seed in range(args.seeds) for name in variants}
    print(f'{len(runs)} trainings, {args.jobs} at a time, in {args.work_dir}', flush=True)
    train(runs, args)
    print('measuring speed', flush=True)
    speed = measure_speed(variants, args)
    results = {}
    for name, variant in variants.items():
        parts = count(config_of(variant, args), (args.image_size, args.image_size))
        results[name] = dict(
            runs=[read_json(runs[name, seed] / 'result.json') for seed in range(args.seeds)],
            parameters=sum(part.parameters for part in parts), macs=sum(part.macs for part in parts),
            images_per_second=speed[name])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='example: python benchmarks/mixers/run.py --quick    (nano, one seed, two epochs: 20 minutes on two '
        'CPU cores)', formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--quick', action='store_true',
                        help='the reduced form: nano, 56×56, one seed, two epochs over the first 24,000 images')
    parser.add_argument('--size', choices=SIZES, default='half-tiny', help='of the body (default: half-tiny)')
    parser.add_argument('--image-size', type=int, default=112,
                        help='height and width to which the images are enlarged (default: 112)')
    parser.add_argument('--seeds', type=int, default=3, help='trainings of each variant (default: 3)')
    parser.add_argument('--epochs', type=int, default=10, help='of each training (default: 10)')
    parser.add_argument('--images', type=int, help='train on the first N images (default: all 60,000)')
    parser.add_argument('--jobs', type=int, default=min(8, os.cpu_count() or 1),
                        help='trainings at a time (default: one for each CPU core, at most 8; a GPU is shared)')
    parser.add_argument('--bf16', action='store_true', help='train and measure in bfloat16, on a GPU')
    parser.add_argument('--data', type=Path, default=DEBIAN, help=f'folder of the four files (default: {DEBIAN})')
    parser.add_argument('--work-dir', type=Path, help='default: one below work_dirs/mixers, for these settings')
    parser.add_argument('--out', type=Path, help='folder of the table and the plots (default: the work dir)')
    if parser.parse_args().quick:  # what is given beside it counts
        parser.set_defaults(size='nano', image_size=56, seeds=1, epochs=2, images=24_000)
    args = parser.parse_args()
    if min(args.seeds, args.epochs, args.jobs) < 1 or args.images is not None and args.images < BATCH_SIZE:
        raise UserError(f'--seeds, --epochs and --jobs have to be 1 or more, and --images {BATCH_SIZE} or more')
    if args.image_size < 32:
        raise UserError('--image-size has to be 32 or more: the network makes maps of a 32nd of it')
    name = '-'.join(str(part) for part in (args.size, args.image_size, args.epochs, args.images) if part)
    args.work_dir = (args.work_dir or ROOT / f"work_dirs/mixers/{name}{'-bf16' * args.bf16}").resolve()
    args.data_root = args.work_dir / 'data'
    prepare_data(args.data, args.data_root)
    results = compare(args)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'{torch.get_num_threads()} CPU threads'
    kept = ('size', 'image_size', 'seeds', 'epochs', 'images', 'jobs', 'bf16')
    settings = {key: getattr(args, key) for key in kept} | dict(
        date=time.strftime('%Y-%m-%d'), device=device, torch=torch.__version__)
    write_report(args.out or args.work_dir, settings, results, list(MIXERS))


if __name__ == '__main__':
    run_command(main)
