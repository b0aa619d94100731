"""Predictions of a trained model, and exports that run without this project.

==================  ======================================================================
``inference``       images and videos in, predictions and pictures out
``writing``         predictions as JSON, label images and pictures
``export``          writes models as files for ONNX Runtime, OpenVINO and torch.export
``onnx_operators``  what the operators of dwnet.ops are in such a file
``comparison``      compares such a file with PyTorch
``trial_images``    the images for that
``record``          what an exported file says of itself
``quantise``        makes int8 files of exported files
``kept_layers``     the layers that stay float32 there for the sake of the score
``runtimes``        runs exported files
``exported``        exported files in the place of models
``hub``             writes models as folders for the Hugging Face Hub
``serve``           a page in the browser and a JSON API
==================  ======================================================================
"""
