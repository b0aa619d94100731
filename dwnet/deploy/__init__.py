"""Predictions of a trained model, and exports that run without this project.

=============  =======================================================
``inference``  images and videos in, predictions and pictures out
``writing``    predictions as JSON, label images and pictures
``export``     writes models as ONNX files and compares them with PyTorch
``hub``        writes models as folders for the Hugging Face Hub
``serve``      a page in the browser and a JSON API
=============  =======================================================
"""
