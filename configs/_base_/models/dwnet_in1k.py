"""DWNet for 1000 classes, with label smoothing, mixup and CutMix."""
_base_ = './dwnet_classifier.py'
model = dict(
    head=dict(loss=dict(
        _delete_=True, type='LabelSmoothLoss', label_smooth_val=.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=.8), dict(type='CutMix', alpha=1.)]))
