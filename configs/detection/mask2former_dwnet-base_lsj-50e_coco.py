"""Mask2Former with DWNet-B on COCO instances: a recipe, not trained; no published figure.

Schedule and augmentation of mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py.
8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/detection/mask2former_dwnet-base_lsj-50e_coco.py 8
"""
_base_ = '../_base_/recipes/mask2former_coco.py'
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dwnet_base_224.pth'
model = dict(
    backbone=dict(
        arch='base',
        init_cfg=dict(type='Pretrained', checkpoint=_weights)),
    panoptic_head=dict(in_channels=[128, 256, 512, 1024]))
