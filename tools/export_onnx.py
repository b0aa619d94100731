#!/usr/bin/env python
"""Runs dwnet/commands/export_onnx.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('export_onnx')
