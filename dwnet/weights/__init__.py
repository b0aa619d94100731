"""Weights in files.

===========  ==========================================================================
``names``    the official code's names of tensors, turned into ours
``loading``  files read and written, and loaded into models strictly
``safety``   what a file may hold, so that it neither runs code nor loads when damaged
===========  ==========================================================================
"""
