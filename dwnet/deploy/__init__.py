"""Predictions of a trained model, and exports that run without this project.

===================  =========================================================
``inference``        images and videos in, predictions and pictures out
``export``           writes models as ONNX files and compares them with PyTorch
``graphs``           the modules that are exported
``detection_graph``  the module that is exported for two-stage detectors
===================  =========================================================
"""
