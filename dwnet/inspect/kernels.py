"""Draws the kernels that DWNet applies to an image, in the last block of each stage."""
import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from dwnet.errors import UserError
from dwnet.models import DWNet

from .figure import new_figure, verbatim

SHOWN = 16  # kernels in a row
FIELD = 6  # positions on each side, if each position has a kernel


def kernels(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The kernels of each stage's last block.

    Args:
        model: A DWNet, or a model with one.
        inputs: Images as the network gets them, (B, 3, H, W).

    Returns:
        For each stage (B, C, k, k), equal for all images in static mixers. For the inhomogeneous mixer
        (B, G, k, k, H', W'), a kernel at each position of the map. For ``local_mlp`` the weights of a window's
        centre, for each head.

    Raises:
        UserError: If the model holds no DWNet.
    """
    backbone = next((module for module in model.modules() if isinstance(module, DWNet)), None)
    if backbone is None:
        raise UserError('this model holds no DWNet, so there are no kernels to draw')
    backbone = copy.deepcopy(backbone).eval()  # leaves the model's mode alone
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        try:
            found.append(module.predict_kernel(arguments[0]).detach())
        except NotImplementedError as error:
            raise UserError(f'the kernels cannot be drawn: {error}') from None

    for stage in backbone.stages:
        mixer = stage.blocks[-1].mixer
        getattr(mixer, 'spatial', mixer).register_forward_hook(keep)
    with torch.no_grad():
        backbone(inputs)
    return found


def plot(found: Sequence[Sequence[Tensor]], pictures: Sequence[np.ndarray], names: Sequence[str],
         mixer: str) -> Figure:
    """Draws each stage's kernels for evenly spread channels or, if each position has a kernel, positions.

    Args:
        found: The result of :func:`kernels` for each single image.
        pictures: The images, (H, W, 3), uint8.
        names: Names of the images.
        mixer: The token mixer, for the title.
    """
    varies = found[0][0].ndim == 6
    stages = len(found[0])
    columns, rows = (stages, len(found)) if varies else (1, stages * len(found))
    figure = new_figure(*((1.6 + 2.5 * columns, 2.6 * rows + .7) if varies else (12, .95 * rows + .6)))
    grid = figure.add_gridspec(rows, 1 + columns, width_ratios=[1.2, *[2.5] * columns] if varies else [1, 14])
    for row in range(rows):
        stage, image = (0, row) if varies else divmod(row, len(found))
        left = figure.add_subplot(grid[row, 0])
        left.imshow(pictures[image])
        left.set(xticks=[], yticks=[])
        left.set_xlabel(verbatim(names[image][-14:]), fontsize=7)
        left.set_ylabel('' if varies else f'stage {stage}', fontsize=9)
        for column in range(columns):
            right = figure.add_subplot(grid[row, 1 + column])
            shown = found[image][stage + column][0]
            mosaic = _field(shown[0]) if varies else _strip(shown)
            limit = float(mosaic.nan_to_num(0, 0, 0).abs().max()) or 1.
            drawn = right.imshow(mosaic, cmap='PuOr', vmin=-limit, vmax=limit, interpolation='nearest')
            right.axis('off')
            if varies and row == 0:
                right.set_title(f'stage {column}', fontsize=10)
            figure.colorbar(drawn, ax=right, fraction=.04, pad=.01).ax.tick_params(labelsize=7)
    what = 'of the first group at positions of the image' if varies else 'of channels'
    size = found[0][0].shape[3]
    figure.suptitle(f'{size}×{size} kernels {what}, last block of each stage, {mixer!r}')
    return figure


def _strip(found: Tensor) -> Tensor:
    """(C, k, k) → kernels side by side, with gaps."""
    channels = torch.linspace(0, len(found) - 1, min(SHOWN, len(found))).round().long()
    return F.pad(found[channels].cpu(), (0, 1), value=torch.nan).transpose(0, 1).flatten(1)[:, :-1]


def _field(found: Tensor) -> Tensor:
    """(k, k, H, W) → the kernels of evenly spread positions, laid out as on the map."""
    ys, xs = (torch.linspace(0, size - 1, min(FIELD, size)).round().long() for size in found.shape[-2:])
    chosen = F.pad(found[:, :, ys][..., xs].permute(2, 3, 0, 1).cpu(), (0, 1, 0, 1), value=torch.nan)  # (y, x, …)
    return chosen.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)[:-1, :-1]
