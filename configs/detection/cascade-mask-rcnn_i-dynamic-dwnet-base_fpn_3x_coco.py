"""Cascade Mask R-CNN with Inhomogeneous dynamic DWNet-B on COCO: no published figure.

8 GPUs × 2 images, fp32 (in fp16 the authors' base models did not train, and bf16 would round the boxes):

    bash tools/dist_train.sh configs/detection/cascade-mask-rcnn_i-dynamic-dwnet-base_fpn_3x_coco.py 8
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_dwnet.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x.py',
    'mmdet::_base_/default_runtime.py',
]
# there is no official file: run i-dynamic-dwnet-base_in1k.py first
_weights = 'work_dirs/i-dynamic-dwnet-base_in1k/epoch_300.pth'
model = dict(
    backbone=dict(
        arch='base',
        token_mixer='inhomogeneous',
        drop_path_rate=.3,
        init_cfg=dict(type='Pretrained', checkpoint=_weights)),
    neck=dict(in_channels=[128, 256, 512, 1024]))
optim_wrapper = dict(type='OptimWrapper')
