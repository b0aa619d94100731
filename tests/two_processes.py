"""Two processes train a few steps, and are asked to stop; each writes what it saw. Started by test_parallel.py."""
import json
import os
import signal
import sys
from pathlib import Path
from uuid import uuid4

import torch
import torch.distributed
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from dwnet import DWNet
from dwnet.engine import Runner
from dwnet.engine.hooks.preemption import Preempted

COLLECTIVES = ('all_reduce', 'broadcast', 'all_gather', 'reduce', 'barrier', 'all_gather_object',
               'broadcast_object_list', 'all_gather_into_tensor')


class Net(BaseModel):
    """1×1 and depth-wise kernels on both layouts, and a single output."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = DWNet(dict(embed_dims=8, depths=(1, 1, 1, 1)), out_indices=(1, ))
        self.neck = nn.Sequential(nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 3))
        self.head = nn.Linear(4, 1)

    def forward(self, x: list[torch.Tensor], mode: str = 'tensor') -> dict:
        y = self.neck(self.backbone(torch.stack(list(x)))[0])
        return dict(loss=self.head(y.mean((2, 3))).square().mean())


class Count(Hook):
    """Collective operations that Python calls, step by step; DistributedDataParallel's own are not among them."""

    def before_train(self, runner: Runner) -> None:
        self.steps, self._count = [], 0
        for name in COLLECTIVES:
            setattr(torch.distributed, name, self._counted(getattr(torch.distributed, name)))

    def _counted(self, operation):
        def run(*args, **kwargs):
            self._count += 1
            return operation(*args, **kwargs)

        return run

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self.steps.append(self._count)

    def after_train(self, runner: Runner) -> None:
        self.steps.append(self._count)


class Sigterm(Hook):
    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if runner.rank == 1 and runner.iter == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def runner_for(out: str, channels_last: bool, hook: Hook) -> Runner:
    torch.manual_seed(0)
    data = [dict(x=torch.rand(3, 32, 32)) for _ in range(40)]
    return Runner(
        model=Net(), work_dir=out, launcher='pytorch', log_level='ERROR', experiment_name=uuid4().hex,
        train_dataloader=dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=data),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=.01)), custom_hooks=[hook],
        default_hooks=dict(checkpoint=None), train_cfg=dict(by_epoch=False, max_iters=6),
        cfg=dict(channels_last=channels_last))


def main(out: str, channels_last: str) -> None:
    count = Count()
    runner = runner_for(out, bool(int(channels_last)), count)
    runner.train()
    weight = runner.model.module.neck[2].weight
    record = dict(collectives=[b - a for a, b in zip(count.steps, count.steps[1:])],
                  channels_last=weight.is_contiguous(memory_format=torch.channels_last))
    runner = runner_for(out, bool(int(channels_last)), Sigterm())
    try:
        runner.train()
    except Preempted as error:
        record.update(ended=str(error), step=runner.iter)
    Path(out, f'record{runner.rank}.json').write_text(json.dumps(record))


if __name__ == '__main__':
    main(*sys.argv[1:])
