"""Predictions of a trained model, and exports that run without this project.

====================  ==================================================================
``inference``         images and videos in, predictions and pictures out
``writing``           predictions as JSON, label images and pictures
``export``            writes models as files for ONNX Runtime, OpenVINO and torch.export
``onnx_operators``    ONNX forms of the operators of :mod:`dwnet.ops`
``comparison``        compares such a file with PyTorch
``trial_images``      the images for that
``record``            what an exported file says of itself
``runtimes``          runs exported files
``exported``          exported files in the place of models
``quantise``          int8 files of exported files
``kept_layers``       which layers stay float32 in an int8 file
``hub``               writes models as folders for the Hugging Face Hub
====================  ==================================================================
"""
