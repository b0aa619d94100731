#!/usr/bin/env python
"""Runs dwnet/commands/export.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('export')
