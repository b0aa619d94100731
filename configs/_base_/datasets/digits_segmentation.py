"""Scenes of several digits, 128×128, each pixel labelled as ground or a digit; made at the first use."""
_data = dict(
    type='BaseSegDataset',
    data_root='data/digits',
    img_suffix='.jpg',
    seg_map_suffix='.png',
    metainfo=dict(
        classes=('ground', *'0123456789'),
        palette=[[0, 0, 0], [255, 64, 64], [255, 179, 64], [217, 255, 64], [102, 255, 64],
                 [64, 255, 140], [64, 255, 255], [64, 140, 255], [102, 64, 255], [217, 64, 255],
                 [255, 64, 179]]))
_loader = dict(batch_size=4, num_workers=2, persistent_workers=True)
train_dataloader = dict(
    **_loader,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **_data,
        data_prefix=dict(img_path='scenes/train', seg_map_path='labels/train'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ]))
val_dataloader = dict(
    **_loader,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_data,
        data_prefix=dict(img_path='scenes/test', seg_map_path='labels/test'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
