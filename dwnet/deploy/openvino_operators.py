"""The form of predicted kernels in OpenVINO's files.

ONNX fixes the number of a convolution's groups, so :mod:`dwnet.deploy.onnx_operators` takes one image at a time.
OpenVINO reads the number from the weights, so there the maps of a whole batch are groups of one convolution, if the
size of the batch is fixed. For one image the reshapes do nothing, and the maps keep the layout of the layers around:
the dynamic DWNet-T runs in three quarters of the time (two threads of a Xeon).
"""
from typing import Any

import numpy as np


def convolve_whole_batches(model: Any) -> int:
    """Replaces the loops over images of predicted kernels by one convolution each, in place.

    Args:
        model: An openvino.Model of :func:`dwnet.deploy.export.export`, reshaped to one size of batch; of an int8 file,
            too. Nothing changes where the batch has any size, because the CPU takes no weights of any shape.

    Returns:
        The number of loops that were replaced.

    Example:
        >>> import openvino
        >>> from dwnet.deploy.openvino_operators import convolve_whole_batches
        >>> model = openvino.Core().read_model('dynamic-dwnet-tiny.xml')
        >>> model.reshape([1, 3, -1, -1])
        >>> convolve_whole_batches(model)
        >>> openvino.save_model(model, 'dynamic-dwnet-tiny_one-image.xml', compress_to_fp16=False)
    """
    from openvino import opset13 as op
    replaced = 0
    for loop in model.get_ordered_ops():
        if not _convolves_one_image_a_turn(loop) or loop.input_value(0).partial_shape[0].is_dynamic:
            continue
        x, kernels = loop.input_value(0), loop.input_value(1)  # (B, C, H, W), (B, C, k, k)
        channels, size = x.partial_shape[1].get_length(), kernels.partial_shape[2].get_length()
        one = op.reshape(x, np.int64([1, -1, 0, 0]), special_zero=True)  # (1, B·C, H, W)
        weights = op.reshape(kernels, np.int64([-1, 1, 1, size, size]), special_zero=False)  # (B·C, 1, 1, k, k)
        edge = [size // 2] * 2
        y = op.group_convolution(one, weights, strides=[1, 1], pads_begin=edge, pads_end=edge, dilations=[1, 1])
        y = op.reshape(y, np.int64([-1, channels, 0, 0]), special_zero=True)  # (B, C, H, W)
        loop.output(0).replace(y.output(0))
        replaced += 1
    model.validate_nodes_and_infer_types()
    return replaced


def _convolves_one_image_a_turn(node: Any) -> bool:
    """Whether an openvino.Node is what the converter makes of the Scan of :mod:`dwnet.deploy.onnx_operators`."""
    if node.get_type_name() != 'TensorIterator' or node.get_input_size() != 2:
        return False
    kinds = [inner.get_type_name() for inner in node.get_function().get_ordered_ops()]
    return kinds.count('GroupConvolution') == 1
