"""UperNet with an auxiliary FCN head, as in the published ADE20K runs."""
_base_ = 'mmseg::_base_/models/upernet_swin.py'
model = dict(
    _scope_='mmseg',  # mmengine.hub.get_model would set this package's scope
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type='dwnet.DWNet',
        out_norm_cfg=dict(type='SyncBN'),
        norm_cfg=dict(type='SyncBN'),
        pad_to_window=True),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150))
