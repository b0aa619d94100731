"""DINO with four scales and DWNet-B on COCO: a recipe, not trained; no published figure.

Schedule and augmentation of mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py.
8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/detection/dino-4scale_dwnet-base_12e_coco.py 8
"""
_base_ = '../_base_/recipes/dino-4scale_coco.py'
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dwnet_base_224.pth'
model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(type='Pretrained', checkpoint=_weights)),
    neck=dict(in_channels=[256, 512, 1024]))
