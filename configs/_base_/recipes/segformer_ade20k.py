"""SegFormer's head for ADE20K; all but the backbone from mmseg's config with the smallest MiT.

The config is segformer_mit-b0_8xb2-160k_ade20k-512x512.py. mmseg trains MiT, SegFormer's own
backbone, by this schedule in all sizes.
"""
_base_ = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
model = dict(
    _scope_='mmseg',  # mmengine.hub.get_model would set this package's scope
    backbone=dict(
        _delete_=True,
        type='dwnet.DWNet',
        out_norm_cfg=dict(type='SyncBN'),
        norm_cfg=dict(type='SyncBN'),
        drop_path_rate=.1),
    decode_head=dict(in_channels=[96, 192, 384, 768]))
# no weight decay on DWNet's BatchNorms, as mmseg's config says of norms called 'norm'
_norms = ('mixer.bn_', 'spatial.bn', *(f'blocks.{block}.bn' for block in range(18)))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={name: dict(decay_mult=0.) for name in _norms}))
auto_scale_lr = dict(enable=False, base_batch_size=16)
