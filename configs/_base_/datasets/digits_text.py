"""Lines of digits, 128×128, with polygons in mmocr's form; made at the first use.

The evaluator is that of mmocr's default_runtime.py.
"""
_data = dict(type='OCRDataset', data_root='data/digits_text')
_loader = dict(num_workers=2, persistent_workers=True)
_meta_keys = ('img_path', 'ori_shape', 'img_shape')
train_dataloader = dict(
    **_loader,
    batch_size=8,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **_data,
        ann_file='train.json',
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadOCRAnnotations', with_polygon=True, with_bbox=True, with_label=True),
            dict(type='PackTextDetInputs', meta_keys=_meta_keys),
        ]))
val_dataloader = dict(
    **_loader,
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_data,
        ann_file='test.json',
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(128, 128), keep_ratio=True),
            dict(type='LoadOCRAnnotations', with_polygon=True, with_bbox=True, with_label=True),
            dict(type='PackTextDetInputs', meta_keys=(*_meta_keys, 'scale_factor')),
        ]))
test_dataloader = val_dataloader
