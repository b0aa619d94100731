"""Class activation maps by Grad-CAM, from the package grad-cam: which part of an image speaks for a class.

Source: "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", Selvaraju et al., ICCV 2017,
arXiv 1610.02391. A detector has no class score for the whole image, so EigenCAM, Muhammad and Yeasin, arXiv 2008.00299,
shows without a class what the layers react to.
"""
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor, nn

from dwnet.errors import UserError, requires

from .layers import find_layers


class _Scores(nn.Module):
    """Class scores of a model: (1, 3, H, W) → (1, K), or (1, K, h, w) for a segmentor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        if is_detector(self.model):
            return self.model.backbone(x)[-1]
        return self.model(x, mode='tensor')


def is_detector(model: nn.Module) -> bool:
    return not hasattr(model, 'decode_head') and not hasattr(model, 'head')


def class_activation(model: nn.Module, inputs: Tensor, layers: Sequence[str] = (),
                     category: int | None = None) -> tuple[dict[str, np.ndarray], int | None]:
    """How much each position speaks for a class, in each layer.

    Args:
        model: A classifier, segmentor or detector in eval mode.
        inputs: An image as the network gets it, (1, 3, H, W).
        layers: Names of the layers; by default DWNet's stages.
        category: The class; by default the predicted class, or a segmentor's most frequent class.

    Returns:
        Layer → (H, W), float, 0 to 1; and the class, None for a detector.

    Raises:
        UserError: If grad-cam is not installed, or a layer or class does not exist.
    """
    with requires('grad-cam', 'vis', 'Grad-CAM'):
        from pytorch_grad_cam import EigenCAM, GradCAM
    scores = _Scores(model)
    with torch.no_grad():
        first = scores(inputs)[0]  # (K, …)
    target = None
    if not is_detector(model):
        if category is None:
            category = int(first.argmax(0).flatten().mode().values)
        if not 0 <= category < len(first):
            raise UserError(f'there is no class {category}: the model has {len(first)}')
        mask = (first.argmax(0) == category).float() if first.ndim == 3 else torch.ones(())
        if not mask.any():  # the class is predicted nowhere: take all positions
            mask = torch.ones_like(mask)

        def target(output: Tensor) -> Tensor:
            return (output[category] * mask).sum()

    kind = EigenCAM if is_detector(model) else GradCAM
    with torch.enable_grad():
        return {name: kind(scores, [layer])(inputs.clone().requires_grad_(), [target])[0]
                for name, layer in find_layers(model, layers).items()}, category


def lay_over(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colours a picture, (H, W, 3), uint8, by the heat, (H, W), 0 to 1; grey where the heat is low."""
    grey = picture.mean(-1, keepdims=True).repeat(3, -1) * .6
    colours = 255 * colormaps['inferno'](heat)[..., :3]
    weight = .25 + .6 * heat[..., None]
    return (grey * (1 - weight) + colours * weight).round().clip(0, 255).astype(np.uint8)
