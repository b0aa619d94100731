"""DWNet with a linear head: LayerNorm, mean over the positions, Linear."""
model = dict(
    _scope_='mmpretrain',  # mmengine.hub.get_model would set this package's scope
    type='ImageClassifier',
    data_preprocessor=dict(
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
    backbone=dict(type='dwnet.DWNet', out_indices=3),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=.02, bias=0.),
        loss=dict(type='CrossEntropyLoss'),
        topk=(1, 5)))
