"""ADE20K, 150 classes, crops of 512×512."""
_base_ = 'mmseg::_base_/datasets/ade20k.py'
train_dataloader = dict(batch_size=2)
