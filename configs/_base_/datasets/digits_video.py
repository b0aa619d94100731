"""Clips of one moving digit, 48×48, of which a few frames are read; made at the first use."""
_data = dict(
    type='VideoDataset',
    data_root='data/digits_clips',
    metainfo=dict(classes=tuple('0123456789')))
_loader = dict(num_workers=2, persistent_workers=True)
train_dataloader = dict(
    **_loader,
    batch_size=32,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **_data,
        ann_file='train.txt',
        data_prefix=dict(video='train'),
        pipeline=[
            dict(type='OpenCVInit'),
            dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=3),
            dict(type='OpenCVDecode'),
            dict(type='FormatShape', input_format='NCHW'),
            dict(type='PackActionInputs'),
        ]))
val_dataloader = dict(
    **_loader,
    batch_size=32,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_data,
        ann_file='test.txt',
        data_prefix=dict(video='test'),
        test_mode=True,
        pipeline=[
            dict(type='OpenCVInit'),
            dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=3, test_mode=True),
            dict(type='OpenCVDecode'),
            dict(type='FormatShape', input_format='NCHW'),
            dict(type='PackActionInputs'),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
