"""Distributed training.

=================  =======================================================
``process_group``  how the processes find each other, with or without GPUs
``peer_liveness``  ends a process when another process is gone
``sharding``       memory layout of gradients and optimiser state, and FSDP
=================  =======================================================
"""
