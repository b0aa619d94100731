#!/usr/bin/env python
"""Writes a config's model as an ONNX file, for any batch and image size, and tries it out in onnxruntime.

The file takes RGB images, (B, 3, H, W), float32 of 0 to 255: the normalisation is inside.
"""
import onnx

import dwnet  # noqa: F401  before the toolboxes, for mmcv's operators
from dwnet.apis import init_model
from dwnet.engine.cli import load_config, make_parser, run_command
from dwnet.export import SHAPES, export_onnx


def main() -> None:
    parser = make_parser(
        __doc__, 'python tools/export_onnx.py configs/classification/dwnet-nano_digits.py '
        'work_dirs/dwnet-nano_digits/epoch_10.pth --out digits.onnx')
    parser.add_argument('checkpoint', nargs='?', help='.pth or .safetensors file (default: random weights, for a try)')
    parser.add_argument('--out', required=True, metavar='FILE', help='the .onnx file to write')
    parser.add_argument('--backbone', action='store_true', help='the backbone alone: its feature maps')
    parser.add_argument('--no-deploy', action='store_true', help='leave the BatchNorms of the backbone unfolded')
    args = parser.parse_args()
    model = init_model(load_config(args), args.checkpoint)
    path = export_onnx(model, args.out, args.backbone, deploy=not args.no_deploy)
    graph = onnx.load(path).graph
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB, {len(graph.node)} nodes')
    for direction, values in (('in', graph.input), ('out', graph.output)):
        for value in values:
            shape = ', '.join(dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
            print(f'{direction:>4}  {value.name} ({shape})')
    print(f'PyTorch and onnxruntime agree to 1e-4 on photographs of {", ".join(f"{h}×{w}" for _, h, w in SHAPES)}')


if __name__ == '__main__':
    run_command(main)
