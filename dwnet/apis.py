"""What a notebook needs."""
import copy
import os

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn


def init_model(config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None = None,
               device: str = 'cpu') -> nn.Module:
    """Builds the model of a config, in eval mode, ready for ``test_step`` and the toolboxes' inferencers.

    Args:
        config: A config file or a config.
        checkpoint: Weights of this project; None leaves the initialisation, which is random unless the
            config's ``init_cfg`` says otherwise.
        device: Where the model goes.

    Returns:
        The toolbox's model: an ``ImageClassifier``, a detector or a segmentor. Its ``cfg`` is the config.

    Example:
        >>> from dwnet.apis import init_model
        >>> model = init_model('configs/classification/dwnet-tiny_in1k.py')
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else Config.fromfile(str(config))
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if checkpoint is not None and cfg.model.get('backbone'):
        cfg.model.backbone.init_cfg = None  # the checkpoint brings all weights
    model = MODELS.build(cfg.model)
    if checkpoint is None:
        model.init_weights()
    else:
        load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True, logger='silent')
    model.cfg = cfg
    model._config = cfg  # mmpretrain's inferencers look for it under this name
    return model.to(device).eval()
