"""ImageNet-1K at 224×224, with the augmentation of the published runs.

The official config also sets colour jitter 0.4, but timm, the official code's library, ignores the setting when
RandAugment is on. So this config has no colour jitter.
"""
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'
train_dataloader = dict(batch_size=128, num_workers=8, persistent_workers=True, drop_last=True)
val_dataloader = dict(batch_size=128, num_workers=8, persistent_workers=True)
test_dataloader = val_dataloader
