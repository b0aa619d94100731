"""DBNet with DWNet: text by a differentiable threshold."""
model = dict(
    _scope_='mmocr',  # mmengine.hub.get_model would set this package's scope
    type='DBNet',
    data_preprocessor=dict(
        type='TextDetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(type='dwnet.DWNet'),
    neck=dict(type='FPNC', in_channels=[96, 192, 384, 768], lateral_channels=256),
    det_head=dict(
        type='DBHead',
        in_channels=256,
        module_loss=dict(type='DBModuleLoss'),
        postprocessor=dict(type='DBPostprocessor', text_repr_type='quad')))
