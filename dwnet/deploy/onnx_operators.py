"""ONNX forms of the operators of :mod:`dwnet.ops`, for ``torch.onnx.export(custom_translation_table=…)``.

An image's kernels are the weights of a convolution with a group for each channel. ONNX fixes the number of groups, so a
``Scan`` takes one image at a time, and the batch stays dynamic. The form of the convolution depends on the runtime:

- OpenVINO has a fast convolution for one channel a group.
- onnxruntime has one only for constant weights. Otherwise it writes the k² neighbourhoods of each position, which takes
  longer than the products. ``ROWS`` rows of outputs as the channels of a group need about a quarter of those copies.
"""
import operator
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnxscript import opset20 as op

# Rows of the output that are computed together. One thread of a Xeon, maps of DWNet-T at 224², onnxruntime's plain
# convolution → 7 rows: 4.2 → 2.0 ms, 2.4 → 1.3, 1.5 → 1.0, 1.5 → 0.9; 4, 8, 14, 16 and 28 rows were no faster.
ROWS = 7


def translations(runtime: str) -> dict[Callable, Callable]:
    """The custom operators' forms for ``'onnxruntime'`` or ``'openvino'``."""
    one_image = dict(onnxruntime=_in_rows, openvino=_plain)[runtime]

    def depthwise(x: ir.Value, weight: ir.Value, bias: ir.Value | None, relu: bool, backend: str) -> ir.Value:
        """(B, C, H, W) with kernels (B, C, k, k); see :func:`dwnet.ops.dynamic_depthwise_conv2d`."""
        channels, size = x.shape[1], weight.shape[2]
        body = one_image(channels, size, x.dtype.name.lower())
        y = op.Scan(x, weight, body=ir.serde.deserialize_graph(onnx.parser.parse_graph(body)), num_scan_inputs=2)
        y = y if bias is None else op.Add(y, op.Unsqueeze(bias, [1, 2]))
        return op.Relu(y) if relu else y

    return {torch.ops.dwnet.depthwise_conv2d.default: depthwise, operator.le: _at_most}


def _at_most(length: ir.Value, bound: ir.Value | int) -> ir.Value:
    """``length <= bound``, by which programs check sizes that depend on values; a bound may be beyond int64."""
    return op.LessOrEqual(length, min(bound, 2**63 - 1) if isinstance(bound, int) else bound)


def _plain(channels: int, size: int, dtype: str) -> str:
    """(C, H, W) with kernels (C, k, k)."""
    edge = size // 2
    return f'''image ({dtype}[{channels}, h, w] x, {dtype}[{channels}, {size}, {size}] kernel)
        => ({dtype}[{channels}, h, w] y) <int64[1] first = {{0}}, int64[1] second = {{1}}> {{
        batch_of_one = Unsqueeze(x, first)
        weight = Unsqueeze(kernel, second)
        convolved = Conv<group = {channels}, pads = [{edge}, {edge}, {edge}, {edge}]>(batch_of_one, weight)
        y = Squeeze(convolved, first)
    }}'''


def _in_rows(channels: int, size: int, dtype: str) -> str:
    """As :func:`_plain`, by a convolution that steps ``ROWS`` rows and whose channels are those rows."""
    edge, span = size // 2, ROWS + size - 1  # a group of rows reads so many rows
    # row r of the outputs reads row i of the inputs by row i - r of the kernel, or by zeros behind the last
    row = np.arange(span) - np.arange(ROWS)[:, None]
    rows = np.where((row >= 0) & (row < size), row, size).flatten()
    return f'''image ({dtype}[{channels}, h, w] x, {dtype}[{channels}, {size}, {size}] kernel)
        => ({dtype}[{channels}, h, w] y)
        <int64[1] first = {{0}}, int64[1] second = {{1}}, int64[6] zeros_below = {{0, 0, 0, 0, 1, 0}},
         int64[{len(rows)}] rows = {{{', '.join(map(str, rows))}}},
         int64[4] weight_shape = {{{channels * ROWS}, 1, {span}, {size}}},
         int64[4] row_channels = {{{channels}, {ROWS}, 0, 0}}, int64[2] joined = {{0, -1}}> {{
        batch_of_one = Unsqueeze(x, first)
        kernel_and_zeros = Pad(kernel, zeros_below)
        shifted = Gather<axis = 1>(kernel_and_zeros, rows)
        weight = Reshape(shifted, weight_shape)
        convolved = Conv<group = {channels}, strides = [{ROWS}, 1],
                         pads = [{edge}, {edge}, {ROWS - 1 + edge}, {edge}]>(batch_of_one, weight)
        split = Reshape(convolved, row_channels)
        in_order = Transpose<perm = [0, 2, 1, 3]>(split)
        height = Shape<start = 1, end = 2>(x)
        width = Shape<start = 2>(x)
        shape = Concat<axis = 0>(joined, width)
        whole = Reshape(in_order, shape)
        y = Slice(whole, first, height, second)
    }}'''
