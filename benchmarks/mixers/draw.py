#!/usr/bin/env python
"""Draws the pictures of docs/mixers.md: how the mixers relate, and what each connects with what.

The matrices are those of the real modules, with random weights, on two random maps of 7×14: the weight from each
position (column) to each position (row) within one channel, once the module has computed its weights from the map.
"""
import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for benchmarks.mixers

import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import dwnet  # noqa: E402, F401  before mmpretrain
from benchmarks.mixers.bodies import WindowAttention  # noqa: E402
from dwnet.models.mixers import (  # noqa: E402
    DynamicDepthwiseConv,
    InhomogeneousDepthwiseConv,
    LocalMlp,
    StaticDepthwiseConv,
)
from dwnet.ops import dynamic_depthwise_conv2d, inhomogeneous_depthwise_conv2d  # noqa: E402

HEIGHT, WIDTH, DIM = 7, 14, 64  # two windows, side by side
POSITIONS = HEIGHT * WIDTH
BN = dict(type='BN')


def basis() -> Tensor:
    """A map for each position, one there and zero elsewhere, in all channels: (H·W, C, H, W)."""
    return torch.eye(POSITIONS).view(-1, 1, HEIGHT, WIDTH).repeat(1, DIM, 1, 1)


def of_convolution(module: nn.Conv2d, x: Tensor) -> Tensor:
    return module(basis()) - module(torch.zeros_like(x))


def of_dynamic(module: DynamicDepthwiseConv, x: Tensor) -> Tensor:
    inputs = basis()
    return dynamic_depthwise_conv2d(inputs, module.predict_kernel(x).expand(len(inputs), -1, -1, -1))


def of_inhomogeneous(module: InhomogeneousDepthwiseConv, x: Tensor) -> Tensor:
    inputs = basis()
    return inhomogeneous_depthwise_conv2d(inputs, module.predict_kernel(x).expand(len(inputs), *[-1] * 5))


def of_local_mlp(module: LocalMlp, x: Tensor) -> Tensor:
    module = copy.deepcopy(module)
    module.value = module.proj = nn.Identity()
    return module(basis())


def of_attention(module: WindowAttention, x: Tensor) -> Tensor:
    """The attention that ``x`` computes, on values that are the basis."""
    module = copy.deepcopy(module)
    attention = module.attention.w_msa
    recorded = []
    with_record = attention.qkv.register_forward_hook(lambda _, __, qkv: recorded.append(qkv[..., :2 * DIM]))
    module(x)
    with_record.remove()
    attention.qkv.register_forward_hook(  # queries and keys of x, and the input as values
        lambda _, inputs, __: torch.cat([recorded[0].repeat(POSITIONS, 1, 1), inputs[0]], -1))
    attention.proj = nn.Identity()
    return module(basis())


MIXERS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor]]] = {
    'depth-wise convolution': (lambda: StaticDepthwiseConv(DIM, BN), of_convolution),
    'dynamic\ndepth-wise convolution': (lambda: DynamicDepthwiseConv(DIM, BN), of_dynamic),
    'inhomogeneous dynamic\ndepth-wise convolution': (lambda: InhomogeneousDepthwiseConv(DIM, BN), of_inhomogeneous),
    'local MLP': (lambda: LocalMlp(DIM), of_local_mlp),
    'local attention': (lambda: WindowAttention(DIM, WIDTH, shifted=False), of_attention),
}


def matrices(name: str) -> dict[str, np.ndarray]:
    """The connectivity matrices of a mixer, (H·W, H·W) each: row = to, column = from."""
    torch.manual_seed(0)
    module = MIXERS[name][0]().eval()
    images = 3 * torch.randn(2, 1, DIM, HEIGHT, WIDTH)  # so large that what depends on them can be seen
    with torch.no_grad():
        first, second = (MIXERS[name][1](module, image).flatten(2) for image in images)  # (from, C, to)
    return {'one channel': first[:, 0].T.numpy(), 'the last channel': first[:, -1].T.numpy(),
            'one channel, another image': second[:, 0].T.numpy()}


def draw_matrices(path: Path) -> None:
    figure = Figure(figsize=(9.5, 15.6), layout='constrained')
    grid = figure.subplots(len(MIXERS), 3)
    for i, (row, name) in enumerate(zip(grid, MIXERS)):
        drawn = matrices(name)
        limit = np.quantile(np.abs(drawn['one channel'][drawn['one channel'] != 0]), .98)
        for axes, (title, matrix) in zip(row, drawn.items()):
            axes.imshow(np.where(matrix == 0, np.nan, matrix), cmap='RdBu_r', vmin=-limit, vmax=limit,
                        interpolation='nearest')
            axes.set(xticks=[], yticks=[], facecolor='#c8c8c8')
            if i == 0:
                axes.set_title(title)
        row[0].set_ylabel(name, fontsize=11)
    grid[-1][0].set_xlabel('from: the 98 positions, row by row')
    grid[-1][1].set_xlabel('grey: not connected')
    grid[-1][2].set_xlabel('red: positive, blue: negative')
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=80)


# Name, what is shared, place (x, y)
BOXES = {
    'convolution': ('a weight for each offset\nand pair of channels', (0, 2)),
    'depth-wise convolution': ('a weight for each offset\nand channel', (1, 2)),
    'dynamic\ndepth-wise convolution': ('the same, predicted\nfrom the whole map', (2, 2)),
    'inhomogeneous dynamic\ndepth-wise convolution': ('a weight for each offset,\nposition and group of channels,\n'
                                                      'predicted at the position', (3, 1)),
    'MLP over positions': ('a weight for each pair\nof positions', (0, 0)),
    'local MLP': ('a weight for each pair in\na window and head', (1, 0)),
    'local attention': ('the same, computed from\nqueries and keys', (2, 0)),
}
ARROWS = [
    ('convolution', 'depth-wise convolution', 'channels apart'),
    ('depth-wise convolution', 'dynamic\ndepth-wise convolution', 'weights from\nthe image'),
    ('dynamic\ndepth-wise convolution', 'inhomogeneous dynamic\ndepth-wise convolution', 'at each\nposition'),
    ('MLP over positions', 'local MLP', 'windows'),
    ('local MLP', 'local attention', 'weights from\nthe image'),
    ('local attention', 'inhomogeneous dynamic\ndepth-wise convolution', 'sliding window,\nweights predicted'),
    ('local MLP', 'depth-wise convolution', 'sliding window,\nshared by positions,\nnot by channels'),
]


def draw_diagram(path: Path) -> None:
    figure = Figure(figsize=(13, 5.6))
    axes = figure.add_axes((0, 0, 1, 1))
    width, height, step_x, step_y = 2.3, 1.0, 3.6, 1.55
    centre = {name: (x * step_x, y * step_y) for name, (_, (x, y)) in BOXES.items()}
    for name, (shared, _) in BOXES.items():
        x, y = centre[name]
        dynamic = 'dynamic' in name or name == 'local attention'
        axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle='round,pad=.08',
                                      facecolor='#FDEBD8' if dynamic else '#E3EEF8', edgecolor='#444444'))
        axes.text(x, y + .25, name, ha='center', va='center', weight='bold', fontsize=10)
        axes.text(x, y - .25, shared, ha='center', va='center', fontsize=8.5)
    for start, end, label in ARROWS:
        (x0, y0), (x1, y1) = centre[start], centre[end]
        ends = [(x0, y0), (x1, y1)]
        if y0 == y1:
            ends = [(x0 + width / 2 + .1, y0), (x1 - width / 2 - .1, y1)]
        elif x0 == x1:
            sign = np.sign(y1 - y0)
            ends = [(x0, y0 + sign * (height / 2 + .1)), (x1, y1 - sign * (height / 2 + .1))]
        else:
            sign = np.sign(y1 - y0)
            ends = [(x0 + width / 2 + .1, y0), (x1, y1 - sign * (height / 2 + .1))]
        axes.annotate('', ends[1], ends[0], arrowprops=dict(arrowstyle='-|>', color='#444444', linewidth=1.3,
                      connectionstyle='arc3' if y0 == y1 or x0 == x1 else f'angle,angleA=0,angleB={90 * sign:.0f}'))
        if y0 == y1:
            place = ((ends[0][0] + ends[1][0]) / 2, y0 + .12)
            axes.text(*place, label, ha='center', va='bottom', fontsize=8.5, style='italic')
        elif x0 == x1:
            axes.text(x0 + .12, (y0 + y1) / 2, label, ha='left', va='center', fontsize=8.5, style='italic')
        else:
            axes.text(x1 - .12, (y0 + ends[1][1]) / 2, label, ha='right', va='center', fontsize=8.5, style='italic')
    axes.text(-1.25, -1.05, 'blue: weights are learned and the same for all images      '
              'orange: weights depend on the image', fontsize=9, va='top')
    axes.set(xlim=(-1.45, 3 * step_x + 1.45), ylim=(-1.4, 2 * step_y + .75))
    axes.axis('off')
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog='example: python benchmarks/mixers/draw.py',
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images', help='folder (default: docs/images)')
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    draw_matrices(folder / 'mixers-matrices.png')
    draw_diagram(folder / 'mixers-diagram.png')
    print(f'{folder}/mixers-matrices.png, {folder}/mixers-diagram.png')


if __name__ == '__main__':
    main()
