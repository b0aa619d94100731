"""Mask2Former for COCO panoptic segmentation; all but the backbone from mmdet's config with a Swin Transformer.

The config is mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py, over the config with a ResNet-50.
"""
_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    '../schedules/mask2former_groups.py',
]
model = dict(
    _scope_='mmdet',  # mmengine.hub.get_model would set this package's scope
    backbone=dict(
        _delete_=True,
        type='dwnet.DWNet',
        out_norm_cfg=dict(type='SyncBN'),
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=.3),
    panoptic_head=dict(in_channels=[96, 192, 384, 768]))
# BatchNorm cannot train on a last batch of one image
train_dataloader = dict(batch_sampler=dict(drop_last=True))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={{_base_.backbone_groups}}))
