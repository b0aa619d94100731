"""From a trained model to predictions and to files that run without this project.

===================  =========================================================
``inference``        images and videos in, predictions and pictures out
``export``           models as ONNX files, compared with PyTorch
``graphs``           what such a file computes
``detection_graph``  the same for detectors of two stages
===================  =========================================================
"""
