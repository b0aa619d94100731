"""K-Net over UperNet with DWNet-T on ADE20K: a recipe, not trained; no published figure.

Schedule and augmentation of mmseg::knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512.py.
8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/segmentation/knet_dwnet-tiny_80k_ade20k-512x512.py 8
"""
_base_ = '../_base_/recipes/knet_ade20k.py'
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dwnet_tiny_224.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        init_cfg=dict(type='Pretrained', checkpoint=_weights)))
