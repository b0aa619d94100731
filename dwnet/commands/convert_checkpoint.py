"""Writes a clean weight file: names of this project, no optimizer, no settings.

Takes official files and training checkpoints of this project; the name gets a part of its SHA-256.
"""
from argparse import ArgumentParser, Namespace

from dwnet.weights.loading import read_state_dict, write_clean

EXAMPLE = 'dwnet_tiny_224.pth weights/dwnet-tiny_in1k.safetensors'


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('source', metavar='IN', help='.pth or .safetensors file, or its address')
    parser.add_argument('target', metavar='OUT', help='.pth or .safetensors file; becomes NAME-SHA256.SUFFIX')


def run(args: Namespace) -> None:
    path = write_clean(args.source, args.target)
    weights = read_state_dict(str(path))
    print(f'{path}: {len(weights)} tensors, {sum(t.numel() for t in weights.values()):,} values, '
          f'{path.stat().st_size / 2**20:.1f} MiB')
