"""160,000 iterations of AdamW at a total batch of 16; no weight decay on parameters named 'norm'."""
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, weight_decay=.01, betas=(.9, .999)),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.))))
# Both schedules start at 0, and their factors multiply. mmengine's last step is end - 1, the official code's is end.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=0, end=160001),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
