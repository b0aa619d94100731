"""Scenes of turned digits, 128×128, with rotated boxes as DOTA has them; made at the first use."""
_data = dict(
    type='DOTADataset',
    data_root='data/digits_rotated',
    metainfo=dict(
        classes=tuple('0123456789'),
        palette=[(255, 64, 64), (255, 179, 64), (217, 255, 64), (102, 255, 64), (64, 255, 140),
                 (64, 255, 255), (64, 140, 255), (102, 64, 255), (217, 64, 255), (255, 64, 179)]))
_loader = dict(num_workers=2, persistent_workers=True)
_boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
_packing = dict(
    type='mmdet.PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
train_dataloader = dict(
    **_loader,
    batch_size=4,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **_data,
        ann_file='train/annfiles/',
        data_prefix=dict(img_path='train/images/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[dict(type='mmdet.LoadImageFromFile'), *_boxes, _packing]))
val_dataloader = dict(
    **_loader,
    batch_size=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_data,
        ann_file='test/annfiles/',
        data_prefix=dict(img_path='test/images/'),
        test_mode=True,
        pipeline=[
            dict(type='mmdet.LoadImageFromFile'),
            dict(type='mmdet.Resize', scale=(128, 128), keep_ratio=True),
            *_boxes,  # behind the resizing: the score counts pixels of the image file
            _packing,
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='DOTAMetric', metric='mAP')
test_evaluator = val_evaluator
