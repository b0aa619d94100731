"""DWNet-T on ImageNet-1K: 81.2 % top-1 reported by the authors.

8 GPUs × 128 images, mixed precision:

    bash tools/dist_train.sh configs/classification/dwnet-tiny_in1k.py 8
"""
_base_ = [
    '../_base_/models/dwnet_in1k.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_300e.py',
    'mmpretrain::_base_/default_runtime.py',
]
model = dict(backbone=dict(arch='tiny', drop_path_rate=.2))
optim_wrapper = dict(type='AmpOptimWrapper')
