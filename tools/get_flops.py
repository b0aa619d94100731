#!/usr/bin/env python
"""Runs dwnet/commands/get_flops.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('get_flops')
