#!/usr/bin/env python
"""Runs dwnet/commands/convert_checkpoint.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('convert_checkpoint')
