"""Cascade Mask R-CNN with Dynamic DWNet-B on COCO: 51.2 box AP, 44.4 mask AP reported by the authors.

8 GPUs × 2 images, fp32 (in fp16 the authors' base models did not train, and bf16 would round the boxes):

    bash tools/dist_train.sh configs/detection/cascade-mask-rcnn_dynamic-dwnet-base_fpn_3x_coco.py 8
"""
_base_ = [
    '../_base_/models/cascade-mask-rcnn_dwnet.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x.py',
    'mmdet::_base_/default_runtime.py',
]
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dynamic_dwnet_base_224.pth'
model = dict(
    backbone=dict(
        arch='base',
        token_mixer='dynamic',
        drop_path_rate=.3,
        init_cfg=dict(type='Pretrained', checkpoint=_weights)),
    neck=dict(in_channels=[128, 256, 512, 1024]))
optim_wrapper = dict(type='OptimWrapper')
