"""Hooks for mmengine's Runner.

===================  ===========================================================
``preemption``       saves the training at SIGTERM, then ends it
``non_finite``       skips steps whose loss or gradients are not finite
``data_stall``       measures how long a training waits for its data
``progress``         draws a progress bar with the time left
``early_stopping``   mmengine's early stopping, which a resume does not reset
``validation_loss``  logs the loss on the validation set
``class_scores``     keeps the scores of each class in checkpoints
``speed``            deployment, bfloat16, and compilation of the backbone
===================  ===========================================================
"""
