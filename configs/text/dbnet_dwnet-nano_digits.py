"""DBNet with DWNet-nano on lines of digits: h-mean 98.6 % with seed 0 and seed 1; there is no published figure.

    python tools/train.py configs/text/dbnet_dwnet-nano_digits.py
"""
_base_ = [
    '../_base_/models/dbnet_dwnet.py',
    '../_base_/datasets/digits_text.py',
    'mmocr::textdet/_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch=dict(embed_dims=32, depths=(1, 1, 2, 1))),
    neck=dict(in_channels=[32, 64, 128, 256], lateral_channels=64, out_channels=16),
    det_head=dict(
        in_channels=64,
        init_cfg=[
            dict(type='Kaiming', layer='Conv2d'),
            # PyTorch's start gives logits up to 2; an unlucky seed spends the training on undoing them
            dict(type='Normal', layer='ConvTranspose2d', std=.01),
        ],
        postprocessor=dict(max_candidates=100)))  # an untrained model finds thousands of specks

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=8, val_interval=8)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=.01),
    clip_grad=dict(max_norm=5.))
param_scheduler = [
    dict(type='LinearLR', start_factor=.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, eta_min=1e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=1, max_keep_ckpts=2))
randomness = dict(seed=0)
