"""What is done at a point of a training or test, for mmengine's Runner to call.

==================  ==================================================================
``preemption``      SIGTERM: the training is saved where it is, then ends
``non_finite``      steps that would ruin the weights are left out
``data_stall``      how long a training waits for its data
``progress``        a bar with the time left
``early_stopping``  an end when validations no longer get better, also across a resume
``speed``           deployment, bfloat16, compilation of the backbone
==================  ==================================================================
"""
