#!/usr/bin/env python
"""Runs dwnet/commands/plot_log.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('plot_log')
