"""Layer-wise learning-rate decay in all three tasks, for every backbone with ``get_layer_depth``.

The constructors of mmdet and mmseg refuse any backbone but ConvNeXt and BEiT (mmsegmentation#1623), and mmpretrain's
constructor asks the whole model for the depths.
"""
import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from dwnet.errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Gives layers of the backbone a lower learning rate the nearer they are to the image.

    The rate of a parameter at depth d of n is multiplied by ``layer_decay_rate ** (n - 1 - d)``. The depths come from
    the backbone's ``get_layer_depth(name, prefix)``, which DWNet has, and mmpretrain's ViT, Swin, BEiT and others.
    Heads and necks keep the whole rate. The other keys of ``paramwise_cfg`` mean the same as in mmengine. The method is
    from ELECTRA (https://arxiv.org/abs/2003.10555).

    Raises:
        UserError: If the backbone has no ``get_layer_depth``.

    Example:
        >>> optim_wrapper = dict(
        ...     type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4), constructor='LayerDecayConstructor',
        ...     paramwise_cfg=dict(layer_decay_rate=.8))
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        super().add_params(params, module, prefix, **kwargs)
        if prefix:  # a submodule: add_params recurses, and the call for the whole model does the work
            return
        backbone = getattr(module, 'backbone', None)
        if not hasattr(backbone, 'get_layer_depth'):
            raise UserError(f'layer-wise learning-rate decay needs a backbone with get_layer_depth, and '
                            f'{type(backbone).__name__} has none; leave --layer-decay out')
        names: dict[torch.Tensor, str] = {p: name for name, p in module.named_parameters()}
        for group in params:
            name = names[group['params'][0]]
            if name.startswith('backbone.'):
                depth, depths = backbone.get_layer_depth(name, 'backbone.')
                rate = self.paramwise_cfg['layer_decay_rate'] ** (depths - 1 - depth)
                group['lr'] = group.get('lr', self.base_lr) * rate
