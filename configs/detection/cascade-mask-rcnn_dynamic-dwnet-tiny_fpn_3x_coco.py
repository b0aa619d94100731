"""Cascade Mask R-CNN with Dynamic DWNet-T on COCO: 50.5 box AP, 43.7 mask AP reported by the authors.

8 GPUs × 2 images, mixed precision:

    bash tools/dist_train.sh configs/detection/cascade-mask-rcnn_dynamic-dwnet-tiny_fpn_3x_coco.py 8
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_dwnet.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x.py',
    'mmdet::_base_/default_runtime.py',
]
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dynamic_dwnet_tiny_224.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        token_mixer='dynamic',
        drop_path_rate=.2,
        init_cfg=dict(type='Pretrained', checkpoint=_weights)))
