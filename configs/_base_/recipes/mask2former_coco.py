"""Mask2Former for COCO instances; all but the backbone from mmdet's config with a Swin Transformer.

The config is mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py, over the config with a ResNet-50.
"""
_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
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
# mmdet's config inherits the folders of panoptic segmentation, which instances do without
_train = dict(data_prefix=dict(_delete_=True, img='train2017/'))
_val = dict(data_prefix=dict(_delete_=True, img='val2017/'))
# BatchNorm cannot train on a last batch of one image
train_dataloader = dict(batch_sampler=dict(drop_last=True), dataset=_train)
val_dataloader = dict(dataset=_val)
test_dataloader = dict(dataset=_val)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={{_base_.backbone_groups}}))
