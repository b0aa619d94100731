"""Validations and tests go on without files that break meanwhile, and their scores are those of the other files."""
import re
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from conftest import ROOT, run_command
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from dwnet.engine import Runner
from dwnet.engine.hooks.validation_loss import ValidationLossHook
from dwnet.engine.scoring import _KeptSampler
from dwnet.errors import UserError


class Files(torch.utils.data.Dataset):
    """Each file holds a number."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        return dict(x=torch.tensor(float(self.files[index].read_text())))

    def get_data_info(self, index: int) -> dict:
        return dict(img_path=str(self.files[index]))


class Same(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, mode='tensor'):
        return dict(loss=self.weight * torch.stack(list(x)).mean()) if mode == 'loss' else list(x)


class Seen(BaseMetric):
    """The numbers that counted."""

    def process(self, data_batch, data_samples):
        self.results += [float(value) for value in data_samples]

    def compute_metrics(self, results):
        return dict(seen=sorted(results))


class Losses(Hook):
    """Keeps the losses of the validations."""

    def __init__(self, losses: list) -> None:
        self.losses = losses

    def after_val_epoch(self, runner, metrics=None):
        self.losses.append(metrics['val/loss'])


class Break(Hook):
    """Breaks files before the second validation; keeps what each one saw."""

    def __init__(self, *files: Path) -> None:
        self.files, self.seen = files, []

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            for file in self.files:
                file.write_text('damaged')

    def after_val_epoch(self, runner, metrics=None):
        self.seen.append(metrics['seen'])


def runner_for(folder: Path, hook: Hook, workers: int = 0, **options) -> Runner:
    def loader(part: str) -> dict:
        return dict(batch_size=2, num_workers=workers, persistent_workers=workers > 0, dataset=Files(folder / part),
                    sampler=dict(type='DefaultSampler', shuffle=False))

    return Runner(
        model=Same(), work_dir=str(folder / 'w'), experiment_name=uuid4().hex, log_level='WARNING',
        train_dataloader=loader('train'), train_cfg=dict(by_epoch=True, max_epochs=3),
        val_dataloader=loader('val'), val_cfg={}, val_evaluator=[Seen()],
        test_dataloader=loader('val'), test_cfg={}, test_evaluator=[Seen()],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.)), custom_hooks=[hook],
        default_hooks=dict(checkpoint=None, logger=None), **options)


def write(folder: Path, number: int = 7) -> list[Path]:
    for part in ('train', 'val'):
        (folder / part).mkdir()
        for i in range(number):
            (folder / part / f'{i:02}').write_text(str(i))
    return sorted((folder / 'val').iterdir())


@pytest.mark.parametrize('workers', [0, 2])
def test_a_validation_begins_again_without_what_breaks(workers, tmp_path, capfd):
    files = write(tmp_path)
    hook = Break(files[2], files[3])  # a whole batch
    runner = runner_for(tmp_path, hook, workers)
    runner.train()
    assert hook.seen == [[0, 1, 2, 3, 4, 5, 6], [0, 1, 4, 5, 6], [0, 1, 4, 5, 6]]
    printed = ''.join(capfd.readouterr())
    for file in files[2:4]:
        assert f'{file} cannot be read and is left out (ValueError: could not convert' in printed
    assert printed.count('2 of 7 validation samples cannot be read and are left out') == 1
    assert runner.test() == dict(seen=[0, 1, 4, 5, 6])


class Exchange(Hook):
    """Exchanges the weights for a validation, as EMA's hook does, and keeps what they are in each step."""

    def __init__(self) -> None:
        self.other, self.validated, self.trained = 7., set(), set()

    def exchange(self, runner, metrics=None):
        weight = runner.model.weight
        weight.data, self.other = torch.tensor(self.other), weight.item()

    before_val_epoch = after_val_epoch = exchange

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.validated.add(runner.model.weight.item())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.trained.add(runner.model.weight.item())


def test_weights_that_are_exchanged_stay_so_when_a_validation_begins_again(tmp_path):
    files = write(tmp_path)
    exchange = Exchange()
    runner = runner_for(tmp_path, Break(files[2]))
    runner.register_hook(exchange)
    runner.train()
    assert exchange.validated == {7} and exchange.trained == {1}


@pytest.mark.long
def test_the_loss_counts_each_image_once_when_a_validation_begins_again(tmp_path):
    files = write(tmp_path)
    runner = runner_for(tmp_path, Break(files[2]))
    runner.register_hook(ValidationLossHook())
    losses = []
    runner.register_hook(Losses(losses))
    runner.train()
    assert losses == pytest.approx([3, 19 / 6, 19 / 6])


@pytest.mark.parametrize('number', [11, pytest.param(20, marks=pytest.mark.long)])
def test_data_that_are_gone_end_in_one_line(number, tmp_path):
    files = write(tmp_path, 20)
    with pytest.raises(UserError, match='validation samples (in a row )?cannot be read'):
        runner_for(tmp_path, Break(*files[:number])).train()


@pytest.mark.parametrize('kept, ranks', [([0, 2, 5], [[0, 5], [2, 0]]), ([1, 3, 4, 9], [[1, 4], [3, 9]])])
def test_what_is_kept_is_dealt_like_all(kept, ranks, monkeypatch):
    for rank, expected in enumerate(ranks):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        sampler = _KeptSampler(kept)
        assert list(sampler) == expected and len(sampler) == 2


@pytest.mark.long
def test_all_processes_leave_out_the_same(tmp_path):
    files = write(tmp_path)
    (tmp_path / 'script.py').write_text(f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / 'tests/engine')!r})
sys.path.insert(0, {str(ROOT / 'tests')!r})
from test_scoring import Break, runner_for

hook = Break(Path({str(files[2])!r}))
runner_for(Path({str(tmp_path)!r}), hook, launcher='pytorch').train()
print('saw', hook.seen)
""")
    done = run_command(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--local-addr', 'localhost',
                       '--nproc-per-node', '2', tmp_path / 'script.py', CUDA_VISIBLE_DEVICES='')
    rest = [float(i) for i in range(7) if i != 2]
    assert re.findall(r'saw (.*)', done.stdout) == [str([[float(i) for i in range(7)], rest, rest])] * 2
