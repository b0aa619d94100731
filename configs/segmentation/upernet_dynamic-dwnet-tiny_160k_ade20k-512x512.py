"""UperNet with Dynamic DWNet-T on ADE20K: 45.7 mIoU reported by the authors, single scale.

8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/segmentation/upernet_dynamic-dwnet-tiny_160k_ade20k-512x512.py 8
"""
_base_ = [
    '../_base_/models/upernet_dwnet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/ade20k_160k.py',
    'mmseg::_base_/default_runtime.py',
]
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dynamic_dwnet_tiny_224.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        token_mixer='dynamic',
        drop_path_rate=.3,
        init_cfg=dict(type='Pretrained', checkpoint=_weights)))
