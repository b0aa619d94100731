"""Pictures and reports: what data, trainings, scores and networks look like; the tools below tools/ call these.

====================  ==================================================================
``figure``            a figure without a window, its colours, contact sheets
``samples``           images with labels, boxes and masks, by the toolbox's visualizer
``page``              pictures on one HTML page
``curves``            training curves from logs
``schedule``          the learning rate of a config
``batch``             training images as the network gets them
``confusion``         confusion matrices of all three tasks
``precision_recall``  precision and recall of a classifier
``coco_errors``       precision-recall curves of a detector, and what it loses where
``layers``            the layers that are looked at
``cam``               which part of an image speaks for a class
``kernels``           the kernels that a network applies to an image
``receptive_field``   which part of an image a feature depends on
``analysis``          what a checkpoint gets wrong, on one page
``report``            how a training went, on one page
``flops``             parameters and multiply-adds, as papers count them
====================  ==================================================================
"""
