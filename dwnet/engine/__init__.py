"""What the Runner needs beyond mmengine."""
from .checkpoints import GatheredGradientsHook, SafeCheckpointHook
from .early_stopping import ResumableEarlyStoppingHook
from .guard import GuardHook
from .layer_decay import LayerDecayConstructor
from .loops import EpochLoop, IterLoop
from .preemption import PreemptionHook
from .progress import ProgressHook
from .reproducible import SeedHook
from .runner import Runner
from .speed import BFloat16Hook, BFloat16OptimWrapper, CompileHook, DeployHook
from .waiting import WaitingHook

__all__ = ['BFloat16Hook', 'BFloat16OptimWrapper', 'CompileHook', 'DeployHook', 'EpochLoop',
           'GatheredGradientsHook', 'GuardHook', 'IterLoop', 'LayerDecayConstructor', 'PreemptionHook', 'ProgressHook',
           'ResumableEarlyStoppingHook', 'Runner', 'SafeCheckpointHook', 'SeedHook', 'WaitingHook']
