"""DWNet-nano on Fashion-MNIST: 60,000 photographs of clothes to learn from, 10,000 to test, 28×28 enlarged to 56×56.

    PYTHONPATH=. python tools/train.py benchmarks/mixers/fashion_mnist.py

``run.py`` trains it with one token mixer after another, and prepares the data.
"""
_base_ = ['../../configs/_base_/models/dwnet_classifier.py', 'mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['benchmarks.mixers.bodies'])
model = dict(
    data_preprocessor=dict(num_classes=10, mean=[72.94], std=[90.02], to_rgb=False),
    backbone=dict(arch=dict(embed_dims=32, depths=(1, 1, 2, 1)), in_channels=1, drop_path_rate=.05),
    head=dict(num_classes=10, in_channels=256, loss=dict(
        _delete_=True, type='LabelSmoothLoss', label_smooth_val=.1, mode='original')))

_data = dict(type='FashionMNIST', data_root='data/fashion-mnist', download=False)
_loader = dict(num_workers=0, persistent_workers=False)  # so small that handing them over would take longer
train_dataloader = dict(
    **_loader,
    batch_size=128,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **_data,
        split='train',
        pipeline=[
            dict(type='RandomCrop', crop_size=28, padding=2),
            dict(type='RandomFlip', prob=.5),
            dict(type='Resize', scale=56),
            dict(type='PackInputs'),
        ]))
val_dataloader = dict(
    **_loader,
    batch_size=250,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**_data, split='test', test_mode=True, pipeline=[
        dict(type='Resize', scale=56), dict(type='PackInputs')]))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=1)
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0., flat_decay_mult=0., custom_keys={
        'relative_position_bias_table': dict(decay_mult=0.)}),  # as Swin is trained
    clip_grad=dict(max_norm=5.))
param_scheduler = [
    dict(type='LinearLR', start_factor=.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, eta_min=1e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(max_keep_ckpts=1))
