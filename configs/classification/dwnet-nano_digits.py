"""DWNet-nano on the embedded digits: top-1 of about 98 % after two minutes on two cores.

    python tools/train.py configs/classification/dwnet-nano_digits.py
"""
_base_ = [
    '../_base_/models/dwnet_classifier.py',
    '../_base_/datasets/digits_classification.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(num_classes=10),
    backbone=dict(arch=dict(embed_dims=32, depths=(1, 1, 2, 1))),
    head=dict(num_classes=10, in_channels=256))

epochs = 10
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=2)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0., flat_decay_mult=0.),
    clip_grad=dict(max_norm=5.))
param_scheduler = [
    dict(type='LinearLR', start_factor=.01, by_epoch=False, end=80),
    dict(type='CosineAnnealingLR', by_epoch=True, eta_min=1e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
