"""DINO with four scales for COCO; all but the backbone from mmdet's dino-4scale_r50_8xb2-12e_coco.py.

mmdet's DINO with a Swin Transformer, dino-5scale_swin-l_8xb2-12e_coco.py, has the same schedule; its drop path is here.
"""
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
model = dict(
    _scope_='mmdet',  # mmengine.hub.get_model would set this package's scope
    backbone=dict(
        _delete_=True,
        type='dwnet.DWNet',
        out_indices=(1, 2, 3),
        out_norm_cfg=dict(type='SyncBN'),
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=.2),
    neck=dict(in_channels=[192, 384, 768]))
# BatchNorm cannot train on a last batch of one image
train_dataloader = dict(batch_sampler=dict(drop_last=True))
