"""Cascade Mask R-CNN with Inhomogeneous dynamic DWNet-T on COCO: no published figure.

8 GPUs × 2 images, mixed precision:

    bash tools/dist_train.sh configs/detection/cascade-mask-rcnn_i-dynamic-dwnet-tiny_fpn_3x_coco.py 8
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_dwnet.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x.py',
    'mmdet::_base_/default_runtime.py',
]
# there is no official file: run i-dynamic-dwnet-tiny_in1k.py first
_weights = 'work_dirs/i-dynamic-dwnet-tiny_in1k/epoch_300.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        token_mixer='inhomogeneous',
        drop_path_rate=.2,
        init_cfg=dict(type='Pretrained', checkpoint=_weights)))
