#!/usr/bin/env python
"""Writes a clean weight file: names of this project, no optimizer, no settings.

Takes official files and training checkpoints of this project; the name gets a part of its SHA-256.
"""
import argparse

from dwnet.engine.cli import as_called, run_command
from dwnet.weights.loading import read_state_dict, write_clean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=as_called('example: python tools/convert_checkpoint.py dwnet_tiny_224.pth '
                         'weights/dwnet-tiny_in1k.safetensors'),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='IN', help='.pth or .safetensors file, or its address')
    parser.add_argument('target', metavar='OUT', help='.pth or .safetensors file; becomes NAME-SHA256.SUFFIX')
    args = parser.parse_args()
    path = write_clean(args.source, args.target)
    weights = read_state_dict(str(path))
    print(f'{path}: {len(weights)} tensors, {sum(t.numel() for t in weights.values()):,} values, '
          f'{path.stat().st_size / 2**20:.1f} MiB')


if __name__ == '__main__':
    run_command(main)
