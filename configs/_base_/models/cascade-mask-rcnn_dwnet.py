"""Cascade Mask R-CNN as in the published COCO runs: box heads of four convolutions and GIoU loss."""
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'


def _box_head(*stds):
    """A box head; ``stds`` divide the regression targets, and shrink from stage to stage."""
    return dict(
        type='ConvFCBBoxHead',
        num_shared_convs=4,
        num_shared_fcs=1,
        in_channels=256,
        conv_out_channels=256,
        fc_out_channels=1024,
        roi_feat_size=7,
        num_classes=80,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.] * 4, target_stds=list(stds)),
        reg_class_agnostic=False,
        reg_decoded_bbox=True,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=10.0))


model = dict(
    _scope_='mmdet',  # mmengine.hub.get_model would set this package's scope
    backbone=dict(
        _delete_=True,
        type='dwnet.DWNet',
        out_norm_cfg=dict(type='SyncBN'),
        norm_cfg=dict(type='SyncBN'),
        pad_to_window=True),
    neck=dict(in_channels=[96, 192, 384, 768]),
    roi_head=dict(bbox_head=[
        _box_head(.1, .1, .2, .2),
        _box_head(.05, .05, .1, .1),
        _box_head(.033, .033, .067, .067),
    ]))
del _box_head
