"""K-Net of three stages over UperNet for Cityscapes, crops of 512×1024: the data of mmseg's cityscapes.py.

mmseg has no K-Net for Cityscapes; the schedule is that for ADE20K.
"""
_base_ = './knet_ade20k.py'
_data = dict(type='CityscapesDataset', data_root='data/cityscapes/')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(.5, 2.), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(512, 1024), cat_max_ratio=.75),
    dict(type='RandomFlip', prob=.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(
    **_data,
    data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
    pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(
    **_data,
    data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    pipeline=test_pipeline))
test_dataloader = val_dataloader
# a list of a base cannot be changed in part: but for the classes, the list is that of the base
_update_head = dict(
    type='KernelUpdateHead',
    num_classes=19,
    num_ffn_fcs=2,
    num_heads=8,
    num_mask_fcs=1,
    feedforward_channels=2048,
    in_channels=512,
    out_channels=512,
    dropout=0.,
    conv_kernel_size=1,
    ffn_act_cfg=dict(type='ReLU', inplace=True),
    with_ffn=True,
    feat_transform_cfg=dict(conv_cfg=dict(type='Conv2d'), act_cfg=None),
    kernel_updator_cfg=dict(
        type='KernelUpdator',
        in_channels=256,
        feat_channels=256,
        out_channels=256,
        act_cfg=dict(type='ReLU', inplace=True),
        norm_cfg=dict(type='LN')))
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(
        kernel_update_head=[_update_head] * 3,
        kernel_generate_head=dict(num_classes=19)),
    auxiliary_head=dict(num_classes=19))
