"""Folding the BatchNorms of the DWNet in any model, for inference."""
from torch import nn

from .dwnet import DWNet


def switch_to_deploy(model: nn.Module) -> nn.Module:
    """Folds every BatchNorm of the DWNet in a model, in place: same outputs in eval mode, faster, irreversible.

    Args:
        model: A DWNet or any model with one inside.

    Returns:
        The same model.

    Raises:
        ValueError: If the model holds no DWNet.
    """
    backbones = [module for module in model.modules() if isinstance(module, DWNet)]
    if not backbones:
        raise ValueError(f"{type(model).__name__} holds no DWNet; only DWNet's BatchNorms can be folded")
    for backbone in backbones:
        backbone.switch_to_deploy()
    return model
