"""UperNet with DWNet-nano on scenes of digits.

    python tools/train.py configs/segmentation/upernet_dwnet-nano_digits.py
"""
_base_ = [
    '../_base_/models/upernet_dwnet.py',
    '../_base_/datasets/digits_segmentation.py',
    'mmseg::_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        arch=dict(embed_dims=32, depths=(1, 1, 2, 1)), pad_to_window=False),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=48,
        dropout_ratio=0.,
        num_classes=11,
        # the ground covers nine tenths of the pixels
        loss_decode=dict(class_weight=[.2] + [1.] * 10)),
    auxiliary_head=dict(
        in_channels=128,
        channels=32,
        dropout_ratio=0.,
        num_classes=11,
        loss_decode=dict(class_weight=[.2] + [1.] * 10)))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=6, val_interval=6)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=.01),
    clip_grad=dict(max_norm=5.))
param_scheduler = [
    dict(type='LinearLR', start_factor=.01, by_epoch=False, end=200),
    dict(type='PolyLR', by_epoch=True, power=1., eta_min=1e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4)
log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=25),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
randomness = dict(seed=0)
