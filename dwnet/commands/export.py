"""Writes a config's model as a file for ONNX Runtime, OpenVINO or PyTorch, and compares the file with PyTorch.

The file takes RGB images of any size, (B, 3, H, W), float32 from 0 to 255, and normalises them itself. The file of a
model that was trained on other images takes images with the channels and values of those.
"""
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.apis import init_model
from dwnet.deploy.export import HALF_TOLERANCE, SUFFIXES, TOLERANCE, export
from dwnet.deploy.runtimes import is_exported, open_exported

from ._arguments import add_config_arguments
from ._config import load_config

EXAMPLE = 'configs/classification/dwnet-nano_digits.py work_dirs/dwnet-nano_digits/epoch_10.pth --to openvino'


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument('checkpoint', nargs='?', help='.pth or .safetensors file (default: random weights, for a try)')
    parser.add_argument('--to', choices=SUFFIXES, default='onnx',
                        help='.onnx; .xml and .bin of OpenVINO; or .pt2 of torch.export (default: onnx)')
    parser.add_argument('--out', metavar='FILE', help='the file (default: WORK_DIR/NAME_OF_THE_CONFIG.onnx …)')
    parser.add_argument('--backbone', action='store_true', help='the backbone alone: its feature maps')
    parser.add_argument('--half', action='store_true', help='store the weights in float16, which halves the file')


def run(args: Namespace) -> None:
    cfg = load_config(args)
    model = init_model(cfg, args.checkpoint)
    out = Path(args.out or Path(cfg.work_dir, f'{Path(args.config).stem}{SUFFIXES[args.to]}'))
    path = export(model, out, args.to, args.backbone, args.half)
    size = sum(file.stat().st_size for file in {path, path.with_suffix('.bin')} if file.is_file())
    print(f'{path}: {size / 2**20:.1f} MiB')
    if is_exported(path):
        record = open_exported(path).record
        print(f"  in  image: {record.normalisation['input']}")
        for name, meaning in record.outputs.items():
            print(f' out  {name}: {meaning}')
    print(f'The file and PyTorch agree to {HALF_TOLERANCE if args.half else TOLERANCE:g} of the largest value')
