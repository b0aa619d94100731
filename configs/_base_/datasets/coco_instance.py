"""COCO with masks, multi-scale training: half of the time whole images, half of the time crops."""
_base_ = 'mmdet::_base_/datasets/coco_instance.py'
_scales = [(short, 1333) for short in range(480, 801, 32)]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=.5),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomChoiceResize', scales=_scales, keep_ratio=True)],
            [
                dict(
                    type='RandomChoiceResize',
                    scales=[(short, 4200) for short in (400, 500, 600)],
                    keep_ratio=True),
                dict(
                    type='RandomCrop',
                    crop_type='absolute_range',
                    crop_size=(384, 600),
                    allow_negative_crop=True),
                dict(type='RandomChoiceResize', scales=_scales, keep_ratio=True),
            ],
        ]),
    dict(type='PackDetInputs'),
]
# BatchNorm cannot train on a last batch of one image
train_dataloader = dict(
    batch_sampler=dict(drop_last=True), dataset=dict(pipeline=train_pipeline))
