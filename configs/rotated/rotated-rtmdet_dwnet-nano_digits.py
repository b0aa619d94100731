"""RTMDet-R with DWNet-nano on scenes of turned digits. There is no published figure.

    python tools/train.py configs/rotated/rotated-rtmdet_dwnet-nano_digits.py
"""
_base_ = [
    '../_base_/datasets/digits_rotated.py',
    'mmrotate::_base_/default_runtime.py',
]
_norm = dict(type='BN')
model = dict(
    type='mmdet.RTMDet',
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        boxtype2tensor=False),
    backbone=dict(
        type='dwnet.DWNet',
        arch=dict(embed_dims=32, depths=(1, 1, 2, 1)),
        out_indices=(1, 2, 3)),
    neck=dict(
        type='mmdet.CSPNeXtPAFPN',
        in_channels=[64, 128, 256],
        out_channels=64,
        num_csp_blocks=1,
        expand_ratio=.5,
        norm_cfg=_norm,
        act_cfg=dict(type='SiLU')),
    bbox_head=dict(
        type='RotatedRTMDetSepBNHead',
        num_classes=10,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        angle_version='le90',
        anchor_generator=dict(type='mmdet.MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistanceAnglePointCoder', angle_version='le90'),
        loss_cls=dict(type='mmdet.QualityFocalLoss', use_sigmoid=True, beta=2., loss_weight=1.),
        loss_bbox=dict(type='RotatedIoULoss', mode='linear', loss_weight=2.),
        with_objectness=False,
        exp_on_reg=True,
        share_conv=True,
        pred_kernel_size=1,
        use_hbbox_loss=False,
        scale_angle=False,
        loss_angle=None,
        norm_cfg=_norm,
        act_cfg=dict(type='SiLU')),
    train_cfg=dict(
        assigner=dict(
            type='mmdet.DynamicSoftLabelAssigner', iou_calculator=dict(type='RBboxOverlaps2D'), topk=13),
        allowed_border=-1,
        pos_weight=-1,
        debug=False),
    test_cfg=dict(
        nms_pre=200,
        min_bbox_size=0,
        score_thr=.05,
        nms=dict(type='nms_rotated', iou_threshold=.1),
        max_per_img=30))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=.05),
    clip_grad=dict(max_norm=35.))
param_scheduler = [
    dict(type='LinearLR', start_factor=.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, eta_min=1e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
