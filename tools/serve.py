#!/usr/bin/env python
"""Runs dwnet/commands/serve.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('serve')
