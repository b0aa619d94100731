"""TSN with DWNet: the mean over the frames of a clip."""
model = dict(
    _scope_='mmaction',  # mmengine.hub.get_model would set this package's scope
    type='Recognizer2D',
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCHW'),
    backbone=dict(type='dwnet.DWNet', out_indices=3),
    cls_head=dict(
        type='TSNHead',
        num_classes=400,
        in_channels=768,
        dropout_ratio=0.,
        average_clips='prob'))
