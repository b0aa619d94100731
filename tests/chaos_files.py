#!/usr/bin/env python
"""Lets damaged and hostile files loose on the project, and counts what becomes of each.

Checkpoints are read, loaded and resumed from; images and COCO annotations go through trainings; other forms of data
are read. Each case runs in a process of its own kind, so that a crash, a hang (30 s) and memory beyond 4 GiB are seen.
A case is right if the file is refused in one line that names it, or if what was loaded is what the whole file holds;
for data, if the work goes on and names what it left out. Nothing in a file may run.
"""
import argparse
import copy
import functools
import importlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import dwnet  # noqa: F401  before the toolboxes
from dwnet.checkpoint import load_weights, read_checkpoint, write_clean
from dwnet.demo import digits
from dwnet.engine import Runner
from dwnet.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
import chaos_forms  # noqa: E402
import chaos_tools  # noqa: E402
import mutations  # noqa: E402
from chaos_tables import LabelImages, Tables  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SECONDS, GIBIBYTES = 30, 4
FAILURE = 'FAILURE: '


def judge(work: Callable[[], str]) -> str:
    """What becomes of a case: what ``work`` says, 'refused', or a failure."""
    try:
        return work()
    except UserError as error:
        return 'refused' if '\n' not in str(error) and len(str(error)) < 5000 else f'{FAILURE}a long error'
    except BaseException as error:
        return f'{FAILURE}{type(error).__name__}: {error}'.replace('\n', ' ')[:300]


# --- Checkpoints ---------------------------------------------------------------------------------


class Checkpoints:
    """Cases made from a checkpoint of a short training of the nano classifier, and from its clean weights."""
    # rewritten with right checksums, so that nothing tells them from a file of other weights
    may_differ = ('pickle opcodes altered', 'dtype altered', 'tensor altered', 'header altered')

    def __init__(self, folder: Path, data: Path, seed: int) -> None:
        self.folder, self.data, self.seed, self.mark = folder, data, seed, folder / 'executed'
        runner = self._runner()
        runner.train()
        path = folder / 'work' / 'epoch_1.pth'
        self.whole = path.read_bytes()
        self.clean = write_clean(path, folder / 'clean.safetensors').read_bytes()
        self.content = read_checkpoint(str(path))
        self.hostile = mutations.hostile_pickles(str(self.mark))
        self.runner = self._runner()
        self.runner.train_loop  # noqa: B018  builds the data loader
        self.settings = self.runner.optim_wrapper, self.runner.param_schedulers

    def _runner(self) -> Runner:
        cfg = Config.fromfile(ROOT / 'configs/classification/dwnet-nano_digits.py')
        loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=str(self.data)))
        cfg.merge_from_dict(dict(
            work_dir=str(self.folder / 'work'), val_cfg=None, val_dataloader=None, val_evaluator=None,
            train_dataloader={**loader, 'dataset': {**loader['dataset'], 'indices': 128}},
            test_cfg=None, test_dataloader=None, test_evaluator=None,
            train_cfg=dict(by_epoch=True, max_epochs=1), log_level='ERROR', experiment_name=f'chaos{time.time_ns()}'))
        cfg.train_cfg.pop('val_interval', None)
        return Runner.from_cfg(cfg)

    def make(self, number: int) -> tuple[str, str, bytes]:
        """Kind of a case, the name of its file, and the content."""
        rng, turn = np.random.default_rng([self.seed, number]), number // 10
        family = number % 10

        def pick(kinds: dict) -> tuple[str, object]:
            return list(kinds.items())[turn % len(kinds)]

        if family <= 1:
            kind, mutate = pick(mutations.BYTES)
            return kind, 'case.pth', mutate(rng, self.whole)
        if family == 2:
            kind, mutate = pick(mutations.ZIP)
            return kind, 'case.pth', mutate(rng, self.whole)
        if family <= 4:
            kind, mutate = pick(mutations.CONTENT)
            return kind, 'case.pth', mutate(rng, self.whole)
        if family <= 8:
            turn = turn * 4 + family - 5
            kind, expressions = pick(self.hostile)
            expression = expressions[turn // len(self.hostile) % len(expressions)]
            return f'hostile: {kind}', 'case.pth', mutations.place_pickle(rng, self.whole, expression)
        kind, mutate = pick({**mutations.BYTES, **mutations.SAFETENSORS, **mutations.SAFETENSORS})
        return f'safetensors: {kind}', 'case.safetensors', mutate(rng, self.clean)

    def kinds(self, number: int) -> list[str]:
        return [self.make(number)[0]]

    def run(self, number: int) -> list[tuple[str, str]]:
        kind, name, content = self.make(number)
        path = self.folder / f'case{os.getpid()}' / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        outcome = judge(lambda: self._load(str(path)))
        if outcome == 'other weights' and kind.removeprefix('safetensors: ') not in self.may_differ:
            outcome = f'{FAILURE}other weights'
        if not outcome.startswith(FAILURE) and (number % 5 == 3 or kind in mutations.CONTENT):
            resumed = judge(lambda: self._resume(str(path)))
            outcome = resumed if resumed.startswith(FAILURE) else f'{outcome}, {resumed} by --resume'
        if self.mark.exists():
            outcome = f'{FAILURE}the file ran code'
        if not outcome.startswith(FAILURE):
            path.unlink()
        return [(kind, outcome)]

    def _load(self, path: str) -> str:
        model = self.runner.model
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.zero_()
        load_weights(model, read_checkpoint(path)['state_dict'], path)
        return 'loaded' if self._same(model.state_dict(), self.content['state_dict']) else 'other weights'

    def _resume(self, path: str) -> str:
        runner = self.runner
        runner.optim_wrapper, runner.param_schedulers = self.settings
        runner._has_loaded = False
        runner.resume(path)
        theirs = runner.optim_wrapper.optimizer.state_dict()['state']
        for index, moments in self.content['optimizer']['state'].items():
            if index in theirs and not self._same(theirs[index], moments):
                return 'other moments'
        if (runner.epoch, runner.iter) != (1, 2):
            return f'{FAILURE}resumed at epoch {runner.epoch}, iteration {runner.iter}'
        steps = [scheduler.last_step for scheduler in runner.param_schedulers]
        if steps != [state['last_step'] for state in self.content['param_schedulers']]:
            return f'{FAILURE}another schedule'
        best = runner.message_hub.get_info('best_ckpt', None)
        if best is not None and not best.startswith(str(self.folder / 'work' / 'best_')):
            return f'{FAILURE}{best} could be removed'
        for parameter in runner.model.parameters():  # the next step works
            parameter.grad = torch.zeros_like(parameter)
        runner.optim_wrapper.step()
        for scheduler in runner.param_schedulers:
            scheduler.step()
        return 'resumed'

    @staticmethod
    def _same(ours: dict, theirs: dict) -> bool:
        return all(torch.equal(torch.as_tensor(ours[key]).float(), torch.as_tensor(theirs[key]).float())
                   for key in theirs)


# --- Trainings -----------------------------------------------------------------------------------


def _train(cfg: Config, folder: Path, model: torch.nn.Module) -> tuple[Runner, str]:
    """A training and its log."""
    runner = Runner(
        model, str(folder), train_dataloader=cfg.train_dataloader, train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=cfg.optim_wrapper, default_scope=cfg.default_scope, default_hooks=dict(checkpoint=None),
        experiment_name=folder.parent.name)
    runner.train()
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise ValueError('weights that are not finite')
    return runner, ''.join(path.read_text() for path in folder.glob('*/*.log'))


class Images:
    """Trainings on folders of 54 whole images and ten damaged ones."""
    batch = 10

    def __init__(self, folder: Path, data: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.cfg = Config.fromfile(ROOT / 'configs/classification/dwnet-nano_digits.py')
        self.cfg.model.backbone.arch.update(embed_dims=8, depths=(1, 1, 1, 1))
        self.cfg.model.head.in_channels = 64
        init_default_scope('mmpretrain')
        importlib.import_module('mmpretrain.models')
        self.model = MODELS.build(self.cfg.model)
        self.files = sorted((data / 'classification/train').glob('*/*.jpg'))[:1280:20]

    def make(self, number: int) -> list[tuple[str, str, bytes, bytes]]:
        """Kind, name, content and original of ten damaged images."""
        cases = []
        for place in range(self.batch):
            rng = np.random.default_rng([self.seed, number, place])
            suffix, turn = ('.jpg', '.png')[place % 2], number * self.batch // 2 + place // 2
            kind, mutate = list(mutations.IMAGES.items())[turn % len(mutations.IMAGES)]
            original = mutations.encode_image(Image.open(self.files[place]), suffix)
            cases.append((f'{suffix} {kind}', f'{place}{suffix}', mutate(rng, original), original))
        return cases

    def kinds(self, number: int) -> list[str]:
        return [kind for kind, *_ in self.make(number)]

    def run(self, number: int) -> list[tuple[str, str]]:
        cases, folder = self.make(number), self.folder / f'images{number}'
        for path in self.files[self.batch:]:
            target = folder / 'data' / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        (folder / 'data' / '0').mkdir(exist_ok=True)
        for _, name, content, _ in cases:
            (folder / 'data' / '0' / name).write_bytes(content)
        cfg = copy.deepcopy(self.cfg)
        cfg.train_dataloader.update(batch_size=8, num_workers=1, persistent_workers=False)
        cfg.train_dataloader.dataset.update(data_root='', data_prefix=str(folder / 'data'))
        log = ''

        def train() -> str:
            nonlocal log
            runner, log = _train(cfg, folder / 'work', self.model)
            return '' if runner.iter == 8 else f'{FAILURE}{runner.iter} steps of 8'

        failure = judge(train).replace('refused', f'{FAILURE}the training stopped')
        outcomes = [
            (kind, failure or judge(functools.partial(self._judge, folder / 'data' / '0' / name, *contents, log)))
            for kind, name, *contents in cases]
        shutil.rmtree(folder)
        return outcomes

    @staticmethod
    def _judge(path: Path, content: bytes, original: bytes, log: str) -> str:
        """A file has to be named, or be an image: a PNG the whole one; a JPEG, without a checksum, as Pillow reads it.

        Pillow refuses some that libjpeg, and so OpenCV, reads with a warning.
        """
        if f'{path} cannot be read and is left out' in log:
            return 'named'
        image, whole = mmcv.imfrombytes(content), mmcv.imfrombytes(original)
        if np.array_equal(image, whole):
            return 'read'
        if path.suffix == '.png' and image.shape == whole.shape:
            return f'{FAILURE}another image, not named'
        try:
            theirs = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert('RGB'))[..., ::-1]
        except Exception:
            return 'read in part'
        same = theirs.shape == image.shape and np.abs(theirs.astype(int) - image).mean() < 2
        return 'read as Pillow reads it' if same else f'{FAILURE}not what Pillow reads'


class Annotations:
    """Trainings of a nano detector on eight scenes, with a damaged annotation file."""

    def __init__(self, folder: Path, data: Path, seed: int) -> None:
        self.folder, self.data, self.seed = folder, data, seed
        self.cfg = Config.fromfile(ROOT / 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py')
        init_default_scope('mmdet')
        importlib.import_module('mmdet.models')
        self.model = MODELS.build(self.cfg.model)
        coco = json.loads((data / 'annotations/train.json').read_text())
        coco['images'] = coco['images'][:8]
        coco['annotations'] = [entry for entry in coco['annotations'] if entry['image_id'] < 8]
        self.whole = json.dumps(coco).encode()

    def make(self, number: int) -> tuple[str, bytes]:
        kind, mutate = list(mutations.COCO.items())[number % len(mutations.COCO)]
        return kind, mutate(np.random.default_rng([self.seed, number]), self.whole)

    def kinds(self, number: int) -> list[str]:
        return [self.make(number)[0]]

    def run(self, number: int) -> list[tuple[str, str]]:
        kind, content = self.make(number)
        folder = self.folder / f'annotations{number}'
        folder.mkdir()
        path = folder / 'train.json'
        path.write_bytes(content)
        outcome = judge(lambda: self._train(path, content))
        if not outcome.startswith(FAILURE):
            shutil.rmtree(folder)
        return [(kind, outcome)]

    def _train(self, path: Path, content: bytes) -> str:
        cfg = copy.deepcopy(self.cfg)
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        cfg.train_dataloader.dataset.update(data_root=str(self.data), ann_file=str(path))
        try:
            runner, log = _train(cfg, path.parent / 'work', self.model)
        except UserError as error:
            if str(path) not in str(error) and 'training samples cannot be read' not in str(error):
                raise ValueError(f'an error that does not name the file: {error}') from error
            raise
        data = runner.train_dataloader.dataset
        used = sum(len(data.get_data_info(index)['instances']) for index in range(len(data)))
        lost = len(json.loads(content)['annotations']) - used
        if 'left out' in log:
            return 'trained, and named'
        return 'trained' if not lost else f'{FAILURE}{lost} annotations dropped in silence'


# --- Processes -----------------------------------------------------------------------------------


def _serve(cases, connection: Connection) -> None:
    """A worker: takes numbers of cases and gives back their kinds and outcomes."""
    sys.stdout = sys.stderr = open(os.devnull, 'w')  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)  # OpenMP's other threads were left behind in the fork, and would be waited for
    while True:
        outcomes = cases.run(connection.recv())
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if used > GIBIBYTES:
            outcomes = [(kind, f'{FAILURE}{used:.1f} GiB of memory') for kind, _ in outcomes]
        connection.send(outcomes)


class Worker:
    """A process that runs cases, one at a time, and may crash in any of them."""

    def __init__(self, cases) -> None:
        self.cases = cases
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context('fork')
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.cases, theirs), daemon=False)
        self.process.start()
        theirs.close()

    def give(self, number: int) -> None:
        self.number, self.deadline = number, time.monotonic() + SECONDS
        self.connection.send(number)

    def take(self) -> list[tuple[str, str]] | None:
        """The outcome of the worker's case, once it is known; a lost process is replaced."""
        try:
            if self.connection.poll():
                outcomes = self.connection.recv()
                if outcomes[0][1].endswith('of memory'):
                    self._replace()
                return outcomes
        except EOFError:
            self.process.join()
            return self._lost(f'the interpreter crashed, exit code {self.process.exitcode}')
        return self._lost('hang') if time.monotonic() > self.deadline else None

    def _lost(self, reason: str) -> list[tuple[str, str]]:
        self._replace()
        return [(kind, FAILURE + reason) for kind in self.cases.kinds(self.number)]

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _replace(self) -> None:
        self.stop()
        self.start()


def run_all(cases, count: int, workers: int) -> tuple[dict[str, Counter], list[str]]:
    """Kind → outcome → number of files, and a line for each failure."""
    record: dict[str, Counter] = defaultdict(Counter)
    failures: list[str] = []
    numbers = iter(range(-(-count // getattr(cases, 'batch', 1))))
    idle, busy = [Worker(cases) for _ in range(workers)], []
    try:
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task(type(cases).__name__.lower(), total=count)
            while True:
                while idle and (number := next(numbers, None)) is not None:
                    busy.append(idle.pop())
                    busy[-1].give(number)
                if not busy:
                    break
                wait([worker.connection for worker in busy], timeout=1)
                for worker in list(busy):
                    for kind, outcome in (outcomes := worker.take() or []):
                        record[kind][outcome if not outcome.startswith(FAILURE) else 'FAILURE'] += 1
                        if outcome.startswith(FAILURE):
                            failures.append(f'case {worker.number}, {kind}: {outcome.removeprefix(FAILURE)}')
                    if outcomes:
                        busy.remove(worker)
                        idle.append(worker)
                        progress.advance(task, len(outcomes))
    finally:
        for worker in idle + busy:
            worker.stop()
    return record, failures


CASES = {'checkpoints': Checkpoints, 'images': Images, 'annotations': Annotations, 'yolo': chaos_forms.Yolo,
         'voc': chaos_forms.Voc, 'labelme': chaos_tools.LabelMe, 'cvat': chaos_tools.Cvat, 'tables': Tables,
         'label-images': LabelImages}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example: python tests/chaos_files.py checkpoints --count 2000 --seed 0 --out checkpoints.json')
    parser.add_argument('what', choices=CASES)
    parser.add_argument('--count', type=int, default=100, help='how many files (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the mutations (default: %(default)s)')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes (default: one a core)')
    parser.add_argument('--out', help='JSON file for {kind of mutation: {outcome: count}}')
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix='chaos-') as folder:
        started, data = time.monotonic(), Path(folder, 'digits')
        digits.prepare(data, digits.DigitsConfig(renderings=1, train_scenes=24, test_scenes=1), show_progress=False)
        record, failures = run_all(CASES[args.what](Path(folder), data, args.seed), args.count, args.workers)
    table = Table('mutation', 'outcome', 'files')
    for kind, outcomes in sorted(record.items()):
        for outcome, number in outcomes.most_common():
            table.add_row(kind, outcome, str(number))
    Console(width=120).print(table)
    print(f'{sum(map(Counter.total, record.values()))} {args.what}, {len(failures)} failures, '
          f'{time.monotonic() - started:.0f} s')
    if args.out:
        Path(args.out).write_text(json.dumps(record, indent=1, sort_keys=True))
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == '__main__':
    main()
