"""What the Runner needs beyond mmengine."""
from .checkpoints import SafeCheckpointHook
from .guard import GuardHook
from .loops import EpochLoop, IterLoop
from .preemption import PreemptionHook
from .progress import ProgressHook
from .reproducible import SeedHook
from .runner import Runner
from .speed import BFloat16Hook, BFloat16OptimWrapper, ChannelsLastHook, CompileHook, DeployHook

__all__ = ['BFloat16Hook', 'BFloat16OptimWrapper', 'ChannelsLastHook', 'CompileHook', 'DeployHook', 'EpochLoop',
           'GuardHook', 'IterLoop', 'PreemptionHook', 'ProgressHook', 'Runner', 'SafeCheckpointHook', 'SeedHook']
