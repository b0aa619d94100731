"""UperNet with Inhomogeneous dynamic DWNet-B on ADE20K: no published figure.

8 GPUs × 2 images, fp32:

    bash tools/dist_train.sh configs/segmentation/upernet_i-dynamic-dwnet-base_160k_ade20k-512x512.py 8
"""
_base_ = [
    '../_base_/models/upernet_dwnet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/ade20k_160k.py',
    'mmseg::_base_/default_runtime.py',
]
# there is no official file: run i-dynamic-dwnet-base_in1k.py first
_weights = 'work_dirs/i-dynamic-dwnet-base_in1k/epoch_300.pth'
model = dict(
    backbone=dict(
        arch='base',
        token_mixer='inhomogeneous',
        drop_path_rate=.3,
        init_cfg=dict(type='Pretrained', checkpoint=_weights)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
