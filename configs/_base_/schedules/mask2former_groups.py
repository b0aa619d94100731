"""DWNet's parameter groups in a Mask2Former: a tenth of the learning rate, and no weight decay on norms.

mmdet and mmseg name Swin's norms in the same way. mmengine takes the longest name that a parameter's name contains.
"""
_norms = ('patch_embed.norm', 'downsample.norm', 'backbone.norms', 'mixer.bn_', 'spatial.bn',
          *(f'blocks.{block}.bn' for block in range(18)))
backbone_groups = {
    'backbone': dict(lr_mult=.1, decay_mult=1.),
    **{name: dict(lr_mult=.1, decay_mult=0.) for name in _norms},
}
