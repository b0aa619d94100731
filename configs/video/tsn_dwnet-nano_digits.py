"""TSN with DWNet-nano on clips of moving digits; there is no published figure.

    python tools/train.py configs/video/tsn_dwnet-nano_digits.py
"""
_base_ = [
    '../_base_/models/tsn_dwnet.py',
    '../_base_/datasets/digits_video.py',
    'mmaction::_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch=dict(embed_dims=32, depths=(1, 1, 2, 1))),
    cls_head=dict(num_classes=10, in_channels=256))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=8, val_interval=8)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0., flat_decay_mult=0.),
    clip_grad=dict(max_norm=5.))
param_scheduler = [
    dict(type='LinearLR', start_factor=.01, by_epoch=False, end=40),
    dict(type='CosineAnnealingLR', by_epoch=True, eta_min=1e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=2, save_best=None))
randomness = dict(seed=0)
