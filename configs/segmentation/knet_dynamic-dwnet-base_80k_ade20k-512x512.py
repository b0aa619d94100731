"""K-Net over UperNet with Dynamic DWNet-B on ADE20K: a recipe, not trained; no published figure.

Schedule and augmentation of mmseg::knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512.py.
8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/segmentation/knet_dynamic-dwnet-base_80k_ade20k-512x512.py 8
"""
_base_ = '../_base_/recipes/knet_ade20k.py'
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dynamic_dwnet_base_224.pth'
model = dict(
    backbone=dict(
        arch='base',
        token_mixer='dynamic',
        init_cfg=dict(type='Pretrained', checkpoint=_weights)),
    decode_head=dict(kernel_generate_head=dict(in_channels=[128, 256, 512, 1024])),
    auxiliary_head=dict(in_channels=512))
