"""Inhomogeneous dynamic DWNet-B on ImageNet-1K: no published figure.

16 GPUs × 64 images on two machines, fp32 (fp16 failed for the authors; `--bf16` trains in bf16).
Run this on each machine, with its NODE_RANK:

    NNODES=2 NODE_RANK=0 MASTER_ADDR=HOST bash tools/dist_train.sh configs/classification/i-dynamic-dwnet-base_in1k.py 8
"""
_base_ = [
    '../_base_/models/dwnet_in1k.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_300e.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(
    backbone=dict(arch='base', token_mixer='inhomogeneous', drop_path_rate=.5),
    head=dict(in_channels=1024))
train_dataloader = dict(batch_size=64)
