"""The demo and its data. Only commands import this folder.

==================  ==================================================
``digits``          makes the embedded data
``digits_rotated``  makes scenes of turned digits with rotated boxes
``digits_pose``     makes scenes of digits with keypoints
``digits_clips``    makes clips of moving digits
``digits_text``     makes lines of digits as text
``embedded``        makes the data set that a config needs
``tasks``           the three tasks: config, scores, shortened training
``three_tasks``     trains and scores all tasks
``report``          writes the demo's HTML page
==================  ==================================================
"""
