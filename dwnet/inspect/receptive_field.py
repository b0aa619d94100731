"""The effective receptive field: which part of an image a feature depends on.

Computed as the gradient of a map's central position with respect to the image, averaged over images. Source:
"Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", Luo et al., NeurIPS 2016,
arXiv 1701.04128.
"""
from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from dwnet.errors import UserError

from .figure import MAP, new_figure
from .layers import find_layers, outputs_of

SHARES = (.5, .95)


def effective_receptive_field(model: nn.Module, inputs: Sequence[Tensor], layers: Sequence[str] = (),
                              done: Callable[[], None] = lambda: None) -> dict[str, np.ndarray]:
    """The gradient of each layer's central position.

    Args:
        model: A model with a ``backbone``, or a backbone, in eval mode.
        inputs: Images as the network gets them, (1, 3, H, W) each, of one size.
        layers: Names of the layers; by default DWNet's stages.
        done: Called after each image.

    Returns:
        Layer → (H, W): the absolute gradient of the sum over the map's channels, summed over the image's channels,
        averaged over the images, and normalised to a sum of 1.

    Raises:
        UserError: If a layer does not exist, or no finite gradient of a layer reaches the image.
    """
    chosen = find_layers(model, layers)
    fields: dict[str, np.ndarray] = dict.fromkeys(chosen, 0.0)
    for image in inputs:
        image = image.clone().requires_grad_()
        with torch.enable_grad(), outputs_of(chosen) as maps:
            getattr(model, 'backbone', model)(image)
        for name, output in maps.items():
            height, width = output.shape[-2:]
            gradient, = torch.autograd.grad(output[..., height // 2, width // 2].sum(), image, retain_graph=True)
            fields[name] = fields[name] + gradient.abs().sum((0, 1)).double().cpu().numpy()
        done()
    if lacking := [name for name, field in fields.items() if not 0 < np.sum(field) < np.inf]:
        raise UserError(f"{', '.join(lacking)}: no finite gradient reaches the image; name layers of the backbone, or "
                        'check the weights')
    return {name: field / field.sum() for name, field in fields.items()}


def side_of(field: np.ndarray, share: float) -> int:
    """Side, in pixels, of the smallest square around the field's centre that holds a share of the field."""
    height, width = field.shape
    centre = (field.sum(1) @ np.arange(height) / field.sum(), field.sum(0) @ np.arange(width) / field.sum())
    distance = np.maximum(np.abs(np.arange(height) - centre[0])[:, None], np.abs(np.arange(width) - centre[1])[None])
    order = np.argsort(distance, axis=None, kind='stable')
    held = np.cumsum(field.ravel()[order]) / field.sum()
    radius = distance.ravel()[order[min(np.searchsorted(held, share), field.size - 1)]]
    return min(2 * int(np.ceil(radius - .5)) + 1, max(height, width))


def plot(fields: dict[str, np.ndarray], title: str) -> Figure:
    """Draws a panel for each layer, with the squares that hold 50 % and 95 % of the field."""
    figure = new_figure(3.1 * len(fields) + .4, 3.9)
    for axes, (name, field) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items()):
        drawn = axes.imshow(field / field.max(), norm=PowerNorm(.25, 0, 1), cmap=MAP)
        height, width = field.shape
        y, x = field.sum(1) @ np.arange(height), field.sum(0) @ np.arange(width)
        sides = [side_of(field, share) for share in SHARES]
        for side, style in zip(sides, ('-', '--')):
            axes.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, fill=False, color='white',
                                     linestyle=style))
        axes.set(xlim=(-.5, width - .5), ylim=(height - .5, -.5), xlabel='px')
        axes.set_title(f'{name}\n{SHARES[0]:.0%} within {sides[0]} px (line),\n'
                       f'{SHARES[1]:.0%} within {sides[1]} px (dashed)', fontsize=9)
    figure.colorbar(drawn, ax=figure.axes, shrink=.7, label='gradient, relative to its largest',
                    ticks=[0, .01, .1, .5, 1])
    figure.suptitle(title)
    return figure
