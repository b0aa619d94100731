#!/usr/bin/env python
"""Writes a config's model as an ONNX file, for any batch and image size, and tries it out in onnxruntime.

The file takes RGB images, (B, 3, H, W), float32 of 0 to 255: the normalisation is inside.
"""
from pathlib import Path

import dwnet  # noqa: F401  before the toolboxes, for mmcv's operators
from dwnet.apis import init_model
from dwnet.deploy.export import SHAPES, export_onnx
from dwnet.engine.cli import load_config, make_parser, run_command


def main() -> None:
    parser = make_parser(
        __doc__, 'python tools/export_onnx.py configs/classification/dwnet-nano_digits.py '
        'work_dirs/dwnet-nano_digits/epoch_10.pth')
    parser.add_argument('checkpoint', nargs='?', help='.pth or .safetensors file (default: random weights, for a try)')
    parser.add_argument('--out', metavar='FILE',
                        help='the .onnx file to write (default: WORK_DIR/NAME_OF_THE_CONFIG.onnx)')
    parser.add_argument('--backbone', action='store_true', help='the backbone alone: its feature maps')
    args = parser.parse_args()
    cfg = load_config(args)
    model = init_model(cfg, args.checkpoint)
    out = args.out or Path(cfg.work_dir, f'{Path(args.config).stem}.onnx')
    path = export_onnx(model, out, args.backbone)
    import onnx  # late: export_onnx says what to do where it is missing
    graph = onnx.load(path).graph
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB, {len(graph.node)} nodes')
    for direction, values in (('in', graph.input), ('out', graph.output)):
        for value in values:
            shape = ', '.join(dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
            print(f'{direction:>4}  {value.name} ({shape})')
    print(f'PyTorch and onnxruntime agree to 1e-4 on photographs of {", ".join(f"{h}×{w}" for _, h, w in SHAPES)}')


if __name__ == '__main__':
    run_command(main)
