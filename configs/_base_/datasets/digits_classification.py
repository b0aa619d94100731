"""Single digits on photographs, 64×64, in a folder for each class; made at the first use."""
_data = dict(type='CustomDataset', data_root='data/digits')
_loader = dict(batch_size=64, num_workers=2, persistent_workers=True)
train_dataloader = dict(
    **_loader,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **_data,
        data_prefix='classification/train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomCrop', crop_size=64, padding=6),
            dict(type='PackInputs'),
        ]))
val_dataloader = dict(
    **_loader,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **_data,
        data_prefix='classification/test',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
