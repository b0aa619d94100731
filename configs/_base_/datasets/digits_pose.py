"""Scenes of several digits, 128×128, with five keypoints a digit, as COCO; made at the first use."""
dataset_type = 'CocoDataset'  # mmpose's inferencers ask for it, and for data_mode
data_mode = 'topdown'
data_root = 'data/digits_pose/'
_names = ('top', 'bottom', 'left', 'right', 'middle')
_colours = ([255, 64, 64], [64, 140, 255], [64, 255, 140], [255, 179, 64], [217, 64, 255])
_mirrored = dict(left='right', right='left')
metainfo = dict(
    dataset_name='digits_pose',
    paper_info={},
    keypoint_info={i: dict(name=name, id=i, color=colour, type='', swap=_mirrored.get(name, ''))
                   for i, (name, colour) in enumerate(zip(_names, _colours))},
    skeleton_info={i: dict(link=(name, 'middle'), id=i, color=colour)
                   for i, (name, colour) in enumerate(zip(_names[:4], _colours))},
    joint_weights=[1.] * 5,
    sigmas=[.05] * 5)
codec = dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=1)

_dataset = dict(type=dataset_type, data_mode=data_mode, data_root=data_root, metainfo=metainfo)
_loader = dict(num_workers=2, persistent_workers=True)
_crop = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(
    **_loader,
    batch_size=32,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **_dataset,
        ann_file='annotations/train.json',
        data_prefix=dict(img='scenes/train/'),
        pipeline=[
            *_crop[:2],
            dict(type='RandomFlip', direction='horizontal'),
            dict(type='RandomBBoxTransform', scale_factor=(.9, 1.1), shift_factor=.05, rotate_factor=0.),
            _crop[2],
            dict(type='GenerateTarget', encoder=codec),
            _crop[3],
        ]))
val_dataloader = dict(
    **_loader,
    batch_size=32,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        **_dataset,
        ann_file='annotations/test.json',
        data_prefix=dict(img='scenes/test/'),
        test_mode=True,
        pipeline=_crop))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoMetric', ann_file=f'{data_root}annotations/test.json', score_mode='keypoint'),
    dict(type='PCKAccuracy', thr=.1),
]
test_evaluator = val_evaluator
