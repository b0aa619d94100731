"""RTMDet with Dynamic DWNet-T on COCO: a recipe, not trained; no published figure.

Schedule and augmentation of mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py.
4 GPUs × 32 images, fp32:

    bash tools/dist_train.sh configs/detection/rtmdet_dynamic-dwnet-tiny_100e_coco.py 4
"""
_base_ = '../_base_/recipes/rtmdet_coco.py'
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dynamic_dwnet_tiny_224.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        token_mixer='dynamic',
        init_cfg=dict(type='Pretrained', checkpoint=_weights)))
