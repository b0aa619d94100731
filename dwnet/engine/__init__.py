"""What the Runner needs beyond mmengine."""
from .checkpoints import GatheredGradientsHook, SafeCheckpointHook
from .hooks.class_scores import ClassScoresHook
from .hooks.data_stall import WaitingHook
from .hooks.early_stopping import ResumableEarlyStoppingHook
from .hooks.non_finite import GuardHook
from .hooks.preemption import PreemptionHook
from .hooks.progress import ProgressHook
from .hooks.speed import BFloat16Hook, BFloat16OptimWrapper, CompileHook, DeployHook
from .hooks.validation_loss import ValidationLossHook
from .layer_decay import LayerDecayConstructor
from .loops import EpochLoop, IterLoop
from .reproducible import SeedHook
from .runner import Runner
from .scoring import TestingLoop, ValidationLoop

__all__ = ['BFloat16Hook', 'BFloat16OptimWrapper', 'ClassScoresHook', 'CompileHook', 'DeployHook', 'EpochLoop',
           'GatheredGradientsHook', 'GuardHook', 'IterLoop', 'LayerDecayConstructor', 'PreemptionHook', 'ProgressHook',
           'ResumableEarlyStoppingHook', 'Runner', 'SafeCheckpointHook', 'SeedHook', 'TestingLoop', 'ValidationLoop',
           'ValidationLossHook', 'WaitingHook']
