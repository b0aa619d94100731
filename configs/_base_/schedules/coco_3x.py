"""36 epochs of AdamW at a total batch of 16, mixed precision; no weight decay on norms' parameters.

As in the official runs, only parameters with 'norm' in their name count as norms' parameters: the BatchNorms
inside the blocks, called 'bn', keep the decay.
"""
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=.05, betas=(.9, .999)),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.))))
param_scheduler = [
    # mmengine's last step is end - 1, the official code's is end
    dict(type='LinearLR', start_factor=.001, by_epoch=False, begin=0, end=501),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
