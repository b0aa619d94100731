#!/usr/bin/env python
"""Runs dwnet/commands/save_pretrained.py."""
from dwnet.commands import start

if __name__ == '__main__':
    start('save_pretrained')
