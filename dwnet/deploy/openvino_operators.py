"""The form of predicted kernels in OpenVINO's files.

ONNX fixes the number of a convolution's groups, so :mod:`dwnet.deploy.onnx_operators` takes one image at a time in a
loop. OpenVINO changes the layout of the maps in front of a loop and behind it. If the size of the batch is fixed, the
loop can become a convolution for each image, and the maps keep the layout of the layers around: with one image the
dynamic DWNet-T runs in three quarters of the time (two threads of a Xeon). A single convolution, whose groups are the
channels of all images, would change the layout, too; benchmarks/README.md compares both.
"""
from typing import Any

import numpy as np


def unroll_batches(model: Any) -> int:
    """Replaces the loops over images of predicted kernels by a convolution for each image, in place.

    Args:
        model: An openvino.Model of :func:`dwnet.deploy.export.export`, reshaped to one size of batch; of an int8 file,
            too. Nothing changes where the batch has any size, because the CPU takes no weights of any shape.

    Returns:
        The number of loops that were replaced.

    Example:
        >>> import openvino
        >>> from dwnet.deploy.openvino_operators import unroll_batches
        >>> model = openvino.Core().read_model('dynamic-dwnet-tiny.xml')
        >>> model.reshape([1, 3, -1, -1])
        >>> unroll_batches(model)
        >>> openvino.save_model(model, 'dynamic-dwnet-tiny_one-image.xml', compress_to_fp16=False)
    """
    from openvino import opset13 as op
    replaced = 0
    for loop in model.get_ordered_ops():
        if not _convolves_one_image_a_turn(loop) or loop.input_value(0).partial_shape[0].is_dynamic:
            continue
        x, kernels = loop.input_value(0), loop.input_value(1)  # (B, C, H, W), (B, C, k, k)
        batch, channels = (x.partial_shape[axis].get_length() for axis in (0, 1))
        size = kernels.partial_shape[2].get_length()
        edge, outputs = [size // 2] * 2, []
        for image, of_image in zip(op.split(x, np.int64(0), batch).outputs(),
                                   op.split(kernels, np.int64(0), batch).outputs()):  # (1, C, H, W), (1, C, k, k)
            weights = op.reshape(of_image, np.int64([channels, 1, 1, size, size]), special_zero=False)
            outputs.append(op.group_convolution(image, weights, strides=[1, 1], pads_begin=edge, pads_end=edge,
                                                dilations=[1, 1]))
        y = op.concat(outputs, 0)  # (B, C, H, W)
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
