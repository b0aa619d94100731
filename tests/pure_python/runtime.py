"""What the three tasks share."""
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, DistSamplerSeedHook, IterTimerHook, LoggerHook, ParamSchedulerHook
from mmengine.optim import CosineAnnealingLR, LinearLR, OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

default_scope = None
backbone_arch = dict(embed_dims=16, depths=(1, 1, 1, 1))
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1, val_interval=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
param_scheduler = [
    dict(type=LinearLR, start_factor=.1, by_epoch=False, end=4),
    dict(type=CosineAnnealingLR, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=2),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=CheckpointHook, interval=1),
    sampler_seed=dict(type=DistSamplerSeedHook))
train_sampler = dict(type=DefaultSampler, shuffle=True)
test_sampler = dict(type=DefaultSampler, shuffle=False)
randomness = dict(seed=0)
