"""Several processes that train together.

=================  =======================================================
``process_group``  how they find each other, with or without a GPU
``peer_liveness``  the end of a process when another one is gone
``sharding``       where gradients and moments lie, and FSDP
=================  =======================================================
"""
