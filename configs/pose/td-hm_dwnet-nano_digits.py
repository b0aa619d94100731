"""A simple baseline with DWNet-nano: the keypoints of digits by heatmaps, top-down.

    python tools/train.py configs/pose/td-hm_dwnet-nano_digits.py
"""
_base_ = ['../_base_/datasets/digits_pose.py', 'mmpose::_base_/default_runtime.py']

model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        type='dwnet.DWNet', arch=dict(embed_dims=32, depths=(1, 1, 2, 1)), out_indices=(3, )),
    head=dict(
        type='HeatmapHead',
        in_channels=256,
        out_channels=5,
        deconv_out_channels=(64, 64, 64),
        deconv_kernel_sizes=(4, 4, 4),
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
        decoder={{_base_.codec}}),
    test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=False))

train_cfg = dict(max_epochs=3, val_interval=3)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=.05),
    clip_grad=dict(max_norm=5.))
param_scheduler = [
    dict(type='LinearLR', start_factor=.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, eta_min=1e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(
    logger=dict(interval=25),
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='coco/AP', rule='greater'))
randomness = dict(seed=0)
