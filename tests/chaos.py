"""The chaos test: trainings that are killed, out of disk or fed with broken files have to end as if undisturbed.

Each part runs on its own, writes its record into the work dir, and fails if what it promises does not hold; a
report gathers the records.
"""
import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from dwnet.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parent.parent
CONFIG = 'configs/classification/dwnet-nano_digits.py'
PYTHON = [sys.executable, '-W', 'ignore']


class Training:
    """A short training on few digits, in a folder of its own.

    Args:
        folder: The work dir.
        data: Digits data.
        steps: Length of the training; a checkpoint comes every third step.
        processes: Started by torchrun if there are two.
        options: Further ``--cfg-options``.
    """

    def __init__(self, folder: Path, data: Path, steps: int, processes: int = 1, options: tuple = ()) -> None:
        self.folder, self.processes = folder, processes
        parts = [f'{part}_dataloader.dataset.data_root={data}' for part in ('train', 'val', 'test')]
        interval = ['default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=3']
        self.command = [
            CONFIG, *([str(processes)] if processes > 1 else []), '--work-dir', str(folder), '--resume',
            '--cfg-options', *parts, *interval, 'train_dataloader.batch_size=8', 'log_level=ERROR',
            f'train_cfg.max_epochs={-(-steps // (self.steps_an_epoch(data) // processes))}',
            'train_cfg.val_begin=1000', 'env_cfg.dist_cfg.timeout=60', *options]
        tool = [*PYTHON, 'tools/train.py'] if processes == 1 else ['bash', 'tools/dist_train.sh']
        self.command = [*tool, *self.command]

    @staticmethod
    def steps_an_epoch(data: Path) -> int:
        return len(list((data / 'classification/train').glob('*/*.jpg'))) // 8

    def start(self, **environment: str) -> subprocess.Popen:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.torn_before = self._torn()
        with (self.folder / 'output.txt').open('a') as log:
            return subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                                    env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **environment})

    def run(self) -> None:
        code = self.start().wait()
        if code:
            raise SystemExit(f'a training ended with exit code {code}:\n{self.output()[-2000:]}')

    def output(self) -> str:
        return (self.folder / 'output.txt').read_text()

    def runs(self) -> int:
        """How often a training has come as far as its log."""
        return sum(path.is_dir() and path.name[:2] == '20' for path in self.folder.glob('*'))

    def writes(self) -> bool:
        """Whether a checkpoint is being written, or was when the training was killed."""
        return not self._torn() <= self.torn_before

    def _torn(self) -> set[tuple[str, int]]:
        found = set()
        for path in self.folder.glob('.*_*.pth.unfinished'):
            with contextlib.suppress(FileNotFoundError):  # renamed by now
                found.add((path.name, path.stat().st_ctime_ns))
        return found

    def next_run(self, process: subprocess.Popen) -> bool:
        """Waits until the process just started has come as far as its log."""
        before = self.runs()
        return wait_for(lambda: self.runs() > before, process)

    def next_checkpoint(self, process: subprocess.Popen) -> bool:
        """Waits until the pointer names a new checkpoint."""
        def age() -> int:
            pointer = self.folder / 'last_checkpoint'
            return pointer.stat().st_mtime_ns if pointer.exists() else 0

        before = age()
        return wait_for(lambda: age() > before, process)

    def final(self) -> dict:
        return read_checkpoint((self.folder / 'last_checkpoint').read_text())


def same_end(a: dict, b: dict) -> bool:
    """Weights, moments and schedules, bit for bit."""
    moments = [(x[key], y[key]) for x, y in zip(a['optimizer']['state'].values(), b['optimizer']['state'].values())
               for key in x]
    return (a['meta']['iter'] == b['meta']['iter'] and a['param_schedulers'] == b['param_schedulers']
            and a['state_dict'].keys() == b['state_dict'].keys() and bool(moments)
            and all(torch.equal(value, b['state_dict'][key]) for key, value in a['state_dict'].items())
            and all(torch.equal(x, y) for x, y in moments))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120,
             pause: float = .01) -> bool:
    """Whether the condition came true while the process lived."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return False


def pause(process: subprocess.Popen, seconds: float) -> None:
    """Sleeps, unless the process ends earlier."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def kill(process: subprocess.Popen) -> None:
    """The training and its data workers, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kills(args: argparse.Namespace) -> dict:
    """SIGKILL at random moments, a quarter of them while a checkpoint is written."""
    whole = Training(args.out / 'whole', args.data, steps=8 * args.kills)
    whole.run()
    cut = Training(args.out / 'cut', args.data, steps=8 * args.kills)
    done = writes = 0
    for _ in track(range(args.kills), 'kills', console=args.console):
        in_write = writes < (done + 1) / 4
        process = cut.start()
        cut.next_run(process)
        if in_write:  # of the first, second or third checkpoint of this run
            for _ in range(random.randint(1, 3)):
                wait_for(lambda: not cut.writes(), process, pause=0)
                wait_for(cut.writes, process, pause=0)
        else:
            pause(process, random.uniform(0, 4))
        if process.poll() is None:
            kill(process)
            done += 1
            writes += cut.writes()
    cut.run()
    return dict(kills=done, during_a_write=writes, runs=cut.runs(), steps=cut.final()['meta']['iter'],
                bit_identical=same_end(whole.final(), cut.final()),
                passed=done >= args.kills - 2 and writes * 4 >= done and same_end(whole.final(), cut.final()))


def children(pid: int) -> list[int]:
    """Trainings among the processes that a launcher started."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            if int(stat.read_text().rpartition(')')[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, ValueError, IndexError):
            continue
    return sorted(found)


def kills_of_one_of_two(args: argparse.Namespace) -> dict:
    """Two processes; one of them is killed, torchrun starts both again, and they go on."""
    restarts = max(2, args.kills // 8)
    whole = Training(args.out / 'whole2', args.data, steps=12 * restarts, processes=2)
    whole.run()
    cut = Training(args.out / 'cut2', args.data, steps=12 * restarts, processes=2)
    process = cut.start(MAX_RESTARTS=str(restarts))
    done = 0
    for _ in track(range(restarts), 'kills of one of two', console=args.console):
        if not cut.next_checkpoint(process):
            break
        pause(process, random.uniform(0, 1))
        victims = children(process.pid)
        if len(victims) == 2:
            os.kill(random.choice(victims), signal.SIGKILL)
            done += 1
    code = process.wait()
    identical = code == 0 and same_end(whole.final(), cut.final())
    return dict(kills=done, exit_code=code, bit_identical=identical, passed=identical and done >= restarts - 1)


def preemption(args: argparse.Namespace) -> dict:
    """SIGTERM to both of two processes, in the middle of an epoch."""
    whole = Training(args.out / 'whole3', args.data, steps=30, processes=2)
    whole.run()
    cut = Training(args.out / 'cut3', args.data, steps=30, processes=2)
    codes = []
    for _ in range(2):
        process = cut.start()
        cut.next_checkpoint(process)
        os.kill(process.pid, signal.SIGTERM)  # torchrun hands it on
        codes.append(process.wait())
    saved = cut.output().count('the training is saved in')
    cut.run()
    identical = same_end(whole.final(), cut.final())
    return dict(exit_codes=codes, saved=saved, bit_identical=identical, passed=identical and saved >= 2)


def full_disk(args: argparse.Namespace) -> dict:
    """The disk fills up in a save; with room again, the previous checkpoint is resumed."""
    whole = Training(args.out / 'whole4', args.data, steps=30)
    whole.run()
    size = max(path.stat().st_size for path in whole.folder.glob('*.pth'))
    disk = args.out / 'disk'
    disk.mkdir(exist_ok=True)
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={int(size * 2.5)}', 'tmpfs', disk],
                             capture_output=True, text=True)
    if mounted.returncode:
        return dict(skipped=f'a small disk cannot be made here: {mounted.stderr.strip()}', passed=True)
    try:
        cut = Training(disk / 'work', args.data, 30, options=('default_hooks.checkpoint.max_keep_ckpts=-1', ))
        code = cut.start().wait()
        message = [line for line in cut.output().splitlines() if line.startswith('error:')]
        subprocess.run(['mount', '-o', 'remount,size=1g', disk], check=True)
        cut.run()
        identical = same_end(whole.final(), cut.final())
    finally:
        subprocess.run(['umount', '-l', disk])
    return dict(exit_code=code, message=message[-1:], bit_identical=identical,
                passed=code == 2 and bool(message) and identical)


def poisoned_batch(args: argparse.Namespace) -> dict:
    """A batch that is not finite, on one process of two: both skip the step."""
    code = subprocess.run(
        [*PYTHON, '-m', 'torch.distributed.run', '--standalone', '--local-addr', 'localhost', '--nproc-per-node', '2',
         'tests/poisoned_batch.py', str(args.out / 'poison'), str(args.data)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    record = args.out / 'poison/record.json'
    if code.returncode or not record.exists():
        return dict(error=code.stderr[-1500:], passed=False)
    return json.loads(record.read_text())


def broken_files(args: argparse.Namespace, kind: str, count: int) -> dict:
    """Mutated files; see chaos_files.py."""
    out = args.out / f'{kind}.json'
    done = subprocess.run([*PYTHON, 'tests/chaos_files.py', kind, '--count', str(count), '--out', str(out)], cwd=ROOT,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})
    return dict(files=count, outcomes=json.loads(out.read_text()) if out.exists() else None,
                passed=done.returncode == 0 and out.exists())


def main() -> None:
    parts: dict[str, Callable[[argparse.Namespace], dict]] = dict(
        kills=kills, two_processes=kills_of_one_of_two, preemption=preemption, full_disk=full_disk,
        poisoned_batch=poisoned_batch,
        checkpoints=lambda args: broken_files(args, 'checkpoints', 50 * args.kills),
        images=lambda args: broken_files(args, 'images', 25 * args.kills),
        annotations=lambda args: broken_files(args, 'annotations', 25 * args.kills // 2))
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='example: python tests/chaos.py --only kills --kills 8',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=parts, default=list(parts), help='parts to run (default: all)')
    parser.add_argument('--kills', type=int, default=40, help='the measure of all parts (default: 40)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/chaos', help='work dir (default: %(default)s)')
    args = parser.parse_args()
    args.console, args.out = Console(), args.out.resolve()
    random.seed(args.seed)
    from dwnet.demo import digits
    args.data = args.out / 'digits'
    digits.prepare(args.data, digits.DigitsConfig(renderings=1, train_scenes=24, test_scenes=9), show_progress=False)
    records = {}
    for name in args.only:
        for folder in args.out.glob('*'):
            if folder.is_dir() and folder != args.data:
                shutil.rmtree(folder, ignore_errors=True)
        args.console.rule(name)
        start = time.monotonic()
        records[name] = {**parts[name](args), 'seconds': round(time.monotonic() - start)}
        args.console.print(records[name])
        (args.out / f'record_{name}.json').write_text(json.dumps(records[name], indent=1))
    report = write_report(args.out)
    args.console.print(f'report: {report}')
    if failed := [name for name, record in records.items() if not record['passed']]:
        sys.exit(f"failed: {', '.join(failed)}")


def write_report(out: Path) -> Path:
    """One line a part, from all records there are."""
    lines = ['# Chaos test', '', '| part | passed | seconds | what was seen |', '| --- | --- | --- | --- |']
    for file in sorted(out.glob('record_*.json')):
        record = json.loads(file.read_text())
        seen = ', '.join(f'{key.replace("_", " ")}: {value}' for key, value in record.items()
                         if key not in ('passed', 'seconds'))
        lines.append(f"| {file.stem.removeprefix('record_').replace('_', ' ')} | {'yes' if record['passed'] else 'NO'} "
                     f"| {record['seconds']} | {seen} |")
    path = out / 'report.md'
    path.write_text('\n'.join(lines) + '\n')
    return path


if __name__ == '__main__':
    main()
