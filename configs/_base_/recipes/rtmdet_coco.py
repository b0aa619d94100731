"""RTMDet with the neck and head of RTMDet-L for COCO; all but the backbone from mmdet's config with a Swin Transformer.

The config is rtmdet_l_swin_b_4xb32-100e_coco.py.
"""
_base_ = 'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py'
model = dict(
    _scope_='mmdet',  # mmengine.hub.get_model would set this package's scope
    backbone=dict(
        _delete_=True,
        type='dwnet.DWNet',
        out_indices=(1, 2, 3),
        out_norm_cfg=dict(type='SyncBN'),
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=.3,
        with_cp=True),
    neck=dict(in_channels=[192, 384, 768]))
# BatchNorm cannot train on a last batch of one image
train_dataloader = dict(drop_last=True)
auto_scale_lr = dict(base_batch_size=128)  # 4 GPUs × 32 images; mmdet's config inherits 16
