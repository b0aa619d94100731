"""Two processes shard a backbone and gather its state; each writes what it holds. Started by test_parallel.py."""
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from dwnet import DWNet
from dwnet.engine.distributed.sharding import shard, shard_state


def main(out: str) -> None:
    dist.init_process_group('gloo')
    torch.manual_seed(dist.get_rank())
    model = shard(DWNet(dict(embed_dims=8, depths=(1, 1, 1, 1))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    shard_state(optimizer)
    sum(x.square().mean() for x in model(torch.rand(2, 3, 32, 32))).backward()
    optimizer.step()
    weights, state = model.state_dict(), optimizer.state_dict()
    shares = {name for name, tensor in weights.items() if isinstance(tensor, DTensor)}
    moments = [value for moments in state['state'].values() for value in moments.values()]
    record = dict(parameters=len(dict(model.named_parameters())), shares=len(shares),
                  moments=sum(isinstance(value, DTensor) for value in moments))
    Path(out, f'record{dist.get_rank()}.json').write_text(json.dumps(record))
    dist.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
