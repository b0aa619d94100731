"""Scenes of several digits, 128×128, as COCO boxes for mmyolo; made at the first use."""
_data = dict(
    type='YOLOv5CocoDataset',
    data_root='data/digits',
    metainfo=dict(
        classes=tuple('0123456789'),
        palette=[(255, 64, 64), (255, 179, 64), (217, 255, 64), (102, 255, 64), (64, 255, 140),
                 (64, 255, 255), (64, 140, 255), (102, 64, 255), (217, 64, 255), (255, 64, 179)]))
_loader = dict(num_workers=2, persistent_workers=True)
_meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape')
train_dataloader = dict(
    **_loader,
    batch_size=8,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='yolov5_collate'),
    dataset=dict(
        **_data,
        ann_file='annotations/train.json',
        data_prefix=dict(img='scenes/train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='YOLOv5RandomAffine',
                max_rotate_degree=0.,
                max_shear_degree=0.,
                max_translate_ratio=.1,
                scaling_ratio_range=(.8, 1.2),
                border_val=(114, 114, 114)),
            dict(type='mmdet.PackDetInputs', meta_keys=_meta_keys),
        ]))
val_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_data,
        ann_file='annotations/test.json',
        data_prefix=dict(img='scenes/test/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='YOLOv5KeepRatioResize', scale=(128, 128)),
            dict(type='LetterResize', scale=(128, 128), allow_scale_up=False, pad_val=dict(img=114)),
            dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.PackDetInputs', meta_keys=(*_meta_keys, 'scale_factor', 'pad_param')),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmdet.CocoMetric', ann_file='data/digits/annotations/test.json', metric='bbox')
test_evaluator = val_evaluator
