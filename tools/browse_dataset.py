#!/usr/bin/env python
"""Runs dwnet/commands/browse_dataset.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('browse_dataset')
