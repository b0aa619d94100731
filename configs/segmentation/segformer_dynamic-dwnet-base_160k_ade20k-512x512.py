"""SegFormer's head with Dynamic DWNet-B on ADE20K: a recipe, not trained; no published figure.

Schedule and augmentation of mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py.
8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/segmentation/segformer_dynamic-dwnet-base_160k_ade20k-512x512.py 8
"""
_base_ = '../_base_/recipes/segformer_ade20k.py'
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dynamic_dwnet_base_224.pth'
model = dict(
    backbone=dict(
        arch='base',
        token_mixer='dynamic',
        init_cfg=dict(type='Pretrained', checkpoint=_weights)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]))
