"""Weights in files.

===========  =======================================================================
``names``    renames the official code's tensors to ours
``loading``  reads and writes files, and loads weights into models strictly
``stem``     RGB weights for images of other channels
``safety``   what a file may hold: files that run code or are damaged do not load
===========  =======================================================================
"""
