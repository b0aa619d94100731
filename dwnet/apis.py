"""What a notebook needs."""
import copy
import os

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from dwnet.checkpoint import load_weights, read_checkpoint
from dwnet.models import DWNet
from dwnet.swap import swap_backbone

__all__ = ['init_model', 'swap_backbone', 'switch_to_deploy']


def init_model(config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None = None,
               device: str = 'cpu') -> nn.Module:
    """Builds the model of a config, in eval mode, ready for ``test_step`` and the toolboxes' inferencers.

    Args:
        config: A config file or a config.
        checkpoint: A ``.pth`` or ``.safetensors`` file or an address, of this project or official; None leaves
            the initialisation, which is random unless the config's ``init_cfg`` says otherwise. A config with
            ``new_heads=True`` takes weights whose heads have other shapes, and leaves those at their
            initialisation.
        device: Where the model goes.

    Returns:
        The toolbox's model: an ``ImageClassifier``, a detector or a segmentor. Its ``cfg`` is the config.

    Raises:
        UserError: If the weights cannot be read or do not fit the model.

    Example:
        >>> from dwnet.apis import init_model
        >>> model = init_model('configs/classification/dwnet-tiny_in1k.py')
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else Config.fromfile(str(config))
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if checkpoint is not None and cfg.model.get('backbone'):
        cfg.model.backbone.init_cfg = None  # the checkpoint brings all weights
    new_heads = cfg.get('new_heads', False)
    model = MODELS.build(cfg.model)
    if checkpoint is None or new_heads:
        model.init_weights()
    if checkpoint is not None:
        load_weights(model, read_checkpoint(str(checkpoint))['state_dict'], str(checkpoint), new_heads)
    model.cfg = cfg
    model._config = cfg  # mmpretrain's inferencers look for it under this name
    return model.to(device).eval()


def switch_to_deploy(model: nn.Module) -> nn.Module:
    """Folds every BatchNorm of the DWNet in a model: the same outputs in eval mode, faster. There is no way back.

    Args:
        model: A DWNet or any model with one inside.

    Returns:
        The same model.

    Raises:
        ValueError: If there is no DWNet in it.
    """
    backbones = [module for module in model.modules() if isinstance(module, DWNet)]
    if not backbones:
        raise ValueError(f'a {type(model).__name__} holds no DWNet, whose BatchNorms could be folded')
    for backbone in backbones:
        backbone.switch_to_deploy()
    return model
