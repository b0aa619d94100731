"""Writes a config's model as an ONNX file, and compares the file in onnxruntime with PyTorch.

The graph takes RGB images of any size, (B, 3, H, W), float32 from 0 to 255, and normalises them itself. The graph of a
model that was trained on other images takes images with the channels and values of those.
"""
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.apis import init_model
from dwnet.deploy.export import SHAPES, export_onnx

from ._arguments import add_config_arguments
from ._config import load_config

EXAMPLE = 'configs/classification/dwnet-nano_digits.py work_dirs/dwnet-nano_digits/epoch_10.pth'


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument('checkpoint', nargs='?', help='.pth or .safetensors file (default: random weights, for a try)')
    parser.add_argument('--out', metavar='FILE',
                        help='the .onnx file to write (default: WORK_DIR/NAME_OF_THE_CONFIG.onnx)')
    parser.add_argument('--backbone', action='store_true', help='the backbone alone: its feature maps')


def run(args: Namespace) -> None:
    cfg = load_config(args)
    model = init_model(cfg, args.checkpoint)
    out = args.out or Path(cfg.work_dir, f'{Path(args.config).stem}.onnx')
    path = export_onnx(model, out, args.backbone)
    import onnx  # late, so that export_onnx reports a missing onnx first
    graph = onnx.load(path).graph
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB, {len(graph.node)} nodes')
    for direction, values in (('in', graph.input), ('out', graph.output)):
        for value in values:
            shape = ', '.join(dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
            print(f'{direction:>4}  {value.name} ({shape})')
    print(f'PyTorch and onnxruntime agree to 1e-4 on photographs of {", ".join(f"{h}×{w}" for _, h, w in SHAPES)}')
