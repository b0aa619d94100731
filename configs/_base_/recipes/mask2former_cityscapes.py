"""Mask2Former for Cityscapes; all but the backbone from mmseg's config with a Swin Transformer.

The config is mask2former_swin-t_8xb2-90k_cityscapes-512x1024.py, which inherits from the config with a ResNet-50.
"""
_base_ = [
    'mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
    '../schedules/mask2former_groups.py',
]
model = dict(
    _scope_='mmseg',  # mmengine.hub.get_model would set this package's scope
    backbone=dict(
        _delete_=True,
        type='dwnet.DWNet',
        out_norm_cfg=dict(type='SyncBN'),
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={{_base_.backbone_groups}}))
