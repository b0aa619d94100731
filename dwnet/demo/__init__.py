"""The demo and its data. Only commands import this folder.

===============  ==================================================
``digits``       makes the embedded data
``tasks``        the three tasks: config, scores, shortened training
``three_tasks``  trains and scores all tasks
``report``       writes the demo's HTML page
===============  ==================================================
"""
