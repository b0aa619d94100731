"""Mask2Former with Dynamic DWNet-T on ADE20K: a recipe, not trained; no published figure.

Schedule and augmentation of mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py.
8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/segmentation/mask2former_dynamic-dwnet-tiny_160k_ade20k-512x512.py 8
"""
_base_ = '../_base_/recipes/mask2former_ade20k.py'
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dynamic_dwnet_tiny_224.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        token_mixer='dynamic',
        init_cfg=dict(type='Pretrained', checkpoint=_weights)))
