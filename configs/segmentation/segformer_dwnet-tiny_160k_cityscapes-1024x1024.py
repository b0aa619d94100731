"""SegFormer's head with DWNet-T on Cityscapes: a recipe, not trained; no published figure.

Schedule and augmentation of mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py.
8 GPUs × 1 image, fp32:

    bash tools/dist_train.sh configs/segmentation/segformer_dwnet-tiny_160k_cityscapes-1024x1024.py 8
"""
_base_ = '../_base_/recipes/segformer_cityscapes.py'
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dwnet_tiny_224.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        init_cfg=dict(type='Pretrained', checkpoint=_weights)))
