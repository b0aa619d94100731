"""Layer-wise learning-rate decay in all three tasks, for every backbone that tells the depth of its parameters.

mmdet's and mmseg's own refuse any backbone but ConvNeXt and BEiT (mmsegmentation#1623), and mmpretrain's asks the whole
model for the depths.
"""
import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from dwnet.errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """The nearer a layer of the backbone is to the image, the slower it learns.

    A parameter at depth d of n has the rate that it would have otherwise, × ``layer_decay_rate ** (n - 1 - d)``. The
    depths are those of the backbone's ``get_layer_depth(name, prefix)``, which DWNet has, and mmpretrain's ViT, Swin,
    BEiT and others; heads and necks learn at the whole rate. All other keys of ``paramwise_cfg`` mean what they mean
    to mmengine. The idea is that of ELECTRA (https://arxiv.org/abs/2003.10555).

    Raises:
        UserError: If the backbone cannot tell the depths.

    Example:
        >>> optim_wrapper = dict(
        ...     type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4), constructor='LayerDecayConstructor',
        ...     paramwise_cfg=dict(layer_decay_rate=.8))
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        super().add_params(params, module, prefix, **kwargs)
        if prefix:  # a part, on which the model as a whole has called it
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
