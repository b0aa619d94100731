"""The demo and its data. Only commands import them; no other part of the package does.

===============  ==========================================================
``digits``       the embedded data
``tasks``        what is trained: a config, its scores, how briefly it can be
``three_tasks``  all tasks, trained and scored
``report``       the page of the demo
===============  ==========================================================
"""
