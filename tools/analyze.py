#!/usr/bin/env python
"""Runs dwnet/commands/analyze.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('analyze')
