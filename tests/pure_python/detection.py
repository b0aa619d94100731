"""RetinaNet with DWNet on scenes of digits, every type a class."""
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.evaluation import CocoMetric
from mmdet.models import FPN, DetDataPreprocessor, FocalLoss, L1Loss, RetinaHead, RetinaNet
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, PseudoSampler
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import read_base

from dwnet import DWNet

with read_base():
    from .runtime import *

model = dict(
    type=RetinaNet,
    data_preprocessor=dict(
        type=DetDataPreprocessor, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(type=DWNet, arch=backbone_arch, out_indices=(1, 2, 3)),
    neck=dict(type=FPN, in_channels=[32, 64, 128], out_channels=16, num_outs=3),
    bbox_head=dict(
        type=RetinaHead, num_classes=10, in_channels=16, stacked_convs=1, feat_channels=16,
        anchor_generator=dict(type=AnchorGenerator, scales=[4], ratios=[1.], strides=[8, 16, 32]),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True),
        loss_bbox=dict(type=L1Loss)),
    train_cfg=dict(
        assigner=dict(type=MaxIoUAssigner, pos_iou_thr=.5, neg_iou_thr=.4, min_pos_iou=0.), sampler=dict(
            type=PseudoSampler), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=.0, nms=dict(type='nms', iou_threshold=.5), max_per_img=20))
meta = dict(classes=tuple('0123456789'))
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=train_sampler,
    dataset=dict(
        type=CocoDataset, data_root='data/digits', ann_file='annotations/train.json', metainfo=meta,
        data_prefix=dict(img='scenes/train/'), indices=8,
        pipeline=[dict(type=LoadImageFromFile), dict(type=LoadAnnotations, with_bbox=True), dict(type=PackDetInputs)]))
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=test_sampler,
    dataset=dict(
        type=CocoDataset, data_root='data/digits', ann_file='annotations/test.json', metainfo=meta,
        data_prefix=dict(img='scenes/test/'), test_mode=True,
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=Resize, scale=(128, 128), keep_ratio=True),
            dict(type=LoadAnnotations, with_bbox=True),
            dict(type=PackDetInputs, meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type=CocoMetric, ann_file='data/digits/annotations/test.json', metric='bbox')
test_evaluator = val_evaluator
visualizer = dict(type=DetLocalVisualizer)
