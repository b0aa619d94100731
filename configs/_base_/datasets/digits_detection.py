"""Scenes of several digits, 128×128, as COCO with instance masks; made at the first use."""
_data = dict(
    type='CocoDataset',
    data_root='data/digits',
    metainfo=dict(
        classes=tuple('0123456789'),
        palette=[(255, 64, 64), (255, 179, 64), (217, 255, 64), (102, 255, 64), (64, 255, 140),
                 (64, 255, 255), (64, 140, 255), (102, 64, 255), (217, 64, 255), (255, 64, 179)]))
_loader = dict(num_workers=2, persistent_workers=True)
_meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_dataloader = dict(
    **_loader,
    batch_size=4,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **_data,
        ann_file='annotations/train.json',
        data_prefix=dict(img='scenes/train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs', meta_keys=_meta_keys),
        ]))
val_dataloader = dict(
    **_loader,
    batch_size=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_data,
        ann_file='annotations/test.json',
        data_prefix=dict(img='scenes/test/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(128, 128), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='PackDetInputs', meta_keys=_meta_keys),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file='data/digits/annotations/test.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
