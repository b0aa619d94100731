"""One of two processes that join, watch each other, add up their ranks and wait. Started by test_launchers.py."""
import time

import torch
import torch.distributed

from dwnet.engine.distributed.peer_liveness import watch_others
from dwnet.engine.distributed.process_group import join

join()
watch_others()
rank = torch.tensor(torch.distributed.get_rank())
torch.distributed.all_reduce(rank)
print('sum', int(rank), flush=True)
time.sleep(60)
