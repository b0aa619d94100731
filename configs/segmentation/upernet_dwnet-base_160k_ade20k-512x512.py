"""UperNet with DWNet-B on ADE20K: 48.3 mIoU reported by the authors, single scale.

8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/segmentation/upernet_dwnet-base_160k_ade20k-512x512.py 8
"""
_base_ = [
    '../_base_/models/upernet_dwnet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/ade20k_160k.py',
    'mmseg::_base_/default_runtime.py',
]
_weights = 'https://github.com/Atten4Vis/DemystifyLocalViT/releases/download/prerelease/dwnet_base_224.pth'
model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=.3,
        init_cfg=dict(type='Pretrained', checkpoint=_weights)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
