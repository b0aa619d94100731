"""Pictures and reports of data, trainings, scores and networks, for the commands.

====================  ===================================================================
``figure``            figures without a window, colours, contact sheets
``samples``           images with labels, boxes and masks, by the toolbox's visualizer
``show``              pictures of a test's predictions
``page``              pictures on one HTML page
``curves``            training curves from logs
``schedule``          learning-rate schedule of a config
``batch``             augmented training images
``confusion``         confusion matrices of all three tasks
``precision_recall``  precision-recall curves of a classifier
``coco_errors``       precision-recall curves of a detector, with COCO's analysis of errors
``layers``            finds layers by name and records their outputs
``cam``               class activation maps
``kernels``           the kernels that a network applies to an image
``receptive_field``   effective receptive field
``analysis``          the errors of a checkpoint, on one page
``class_table``       numbers and scores of each class
``report``            the course of a training, on one page
``flops``             parameters and multiply-adds, as papers count them
====================  ===================================================================
"""
