#!/usr/bin/env python
"""Runs dwnet/commands/plot_lr.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('plot_lr')
