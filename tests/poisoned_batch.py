"""Two processes train a few steps; the second one's fourth batch is not finite. Started by chaos.py."""
import json
import sys
from pathlib import Path

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.hooks import Hook

import dwnet  # noqa: F401
from dwnet.engine import GuardHook, Runner


class Poison(Hook):
    priority = 'LOWEST'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if runner.rank == 1 and runner.iter == 3:
            data_batch['inputs'] = [image.float() * float('nan') for image in data_batch['inputs']]
        self.before = {name: value.clone() for name, value in runner.model.state_dict().items()}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs=None) -> None:
        unchanged = all(torch.equal(value, self.before[name]) for name, value in runner.model.state_dict().items())
        assert unchanged == (runner.iter == 3), f'step {runner.iter + 1}: unchanged is {unchanged}'


def main(out: str, data: str) -> None:
    cfg = Config.fromfile('configs/classification/dwnet-nano_digits.py')
    cfg.merge_from_dict({'work_dir': out, 'launcher': 'pytorch', 'log_level': 'ERROR', 'val_dataloader': None,
                         'val_cfg': None, 'val_evaluator': None, 'test_dataloader': None, 'test_cfg': None,
                         'test_evaluator': None, 'train_dataloader.dataset.data_root': data})
    cfg.train_cfg = dict(by_epoch=False, max_iters=8)
    cfg.param_scheduler = []
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Poison())
    runner.train()
    weights = torch.cat([p.detach().flatten() for p in runner.model.parameters()])
    others = [torch.empty_like(weights) for _ in range(2)]
    torch.distributed.all_gather(others, weights)
    finite = all(bool(value.isfinite().all()) for value in runner.model.state_dict().values())
    guard = next(hook for hook in runner.hooks if isinstance(hook, GuardHook))
    fine = torch.tensor(int(finite and guard.skipped == 1))
    torch.distributed.all_reduce(fine, torch.distributed.ReduceOp.MIN)
    record = dict(skipped_on_both=bool(fine), weights_identical=torch.equal(*others))
    if runner.rank == 0:
        Path(out, 'record.json').write_text(json.dumps({**record, 'passed': all(record.values())}))


if __name__ == '__main__':
    main(*sys.argv[1:])
