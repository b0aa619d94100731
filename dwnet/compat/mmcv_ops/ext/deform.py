"""Deformable convolution by torchvision, multi-scale deformable attention by ``grid_sample``.

mmcv's ``im2col_step``, the number of images that it unfolds at once, changes memory use but not the result.
"""
from collections.abc import Callable

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor
from torch.nn import functional

from .precision import wide

FAR = -1e6  # pixels, replaces NaN and infinity: outside every map, as in mmcv; torchvision would crash


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
                        kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int,
                        group: int, deformable_group: int, im2col_step: int) -> None:
    """Writes the convolution (arXiv:1703.06211) of ``input``, (B, C, H, W), into ``output``.

    ``offset`` is (B, 2 * deformable_group * kH * kW, h, w), y before x for each point of the kernel.
    """
    output.copy_(_convolve(input, weight, offset, None, None, (dH, dW), (padH, padW), (dilationH, dilationW), group,
                           deformable_group))


def deform_conv_backward_input(input: Tensor, offset: Tensor, gradOutput: Tensor, gradInput: Tensor,
                               gradOffset: Tensor, weight: Tensor, columns: Tensor, kW: int, kH: int, dW: int, dH: int,
                               padW: int, padH: int, dilationW: int, dilationH: int, group: int,
                               deformable_group: int, im2col_step: int) -> None:
    """Writes the gradients of :func:`deform_conv_forward` with regard to input and offset."""
    gradients = _convolve_backward(gradOutput, input, weight, offset, None, None, (dH, dW), (padH, padW),
                                   (dilationH, dilationW), group, deformable_group)
    gradInput.copy_(gradients[0]), gradOffset.copy_(gradients[2])


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, gradOutput: Tensor, gradWeight: Tensor,
                                    columns: Tensor, ones: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int,
                                    padH: int, dilationW: int, dilationH: int, group: int, deformable_group: int,
                                    scale: float, im2col_step: int) -> None:
    """Writes the gradient of :func:`deform_conv_forward` with regard to the weight."""
    gradients = _convolve_backward(gradOutput, input, torch.zeros_like(gradWeight), offset, None, None, (dH, dW),
                                   (padH, padW), (dilationH, dilationW), group, deformable_group)
    gradWeight.copy_(scale * gradients[1])


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                  mask: Tensor, output: Tensor, columns: Tensor, kernel_h: int, kernel_w: int,
                                  stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int,
                                  dilation_w: int, group: int, deformable_group: int, with_bias: bool) -> None:
    """Also multiplies each point by ``mask``, (B, deformable_group * kh * kw, h, w) (arXiv:1811.11168)."""
    offset = _as_read(offset, 2, weight, deformable_group, output.shape[2:])
    mask = _as_read(mask, 1, weight, deformable_group, output.shape[2:])
    output.copy_(_convolve(input, weight, offset, mask, bias if with_bias else None, (stride_h, stride_w),
                           (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group))


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                   mask: Tensor, columns: Tensor, grad_input: Tensor, grad_weight: Tensor,
                                   grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
                                   dilation_h: int, dilation_w: int, group: int, deformable_group: int,
                                   with_bias: bool) -> None:
    """Writes the gradients of :func:`modulated_deform_conv_forward`."""
    offset = _as_read(offset, 2, weight, deformable_group, grad_output.shape[2:])
    mask = _as_read(mask, 1, weight, deformable_group, grad_output.shape[2:])
    gradients = _convolve_backward(grad_output, input, weight, offset, mask, bias if with_bias else None,
                                   (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group,
                                   deformable_group)
    outputs = (grad_input, grad_weight, grad_offset, grad_mask, *[grad_bias] * with_bias)
    for written, gradient in zip(outputs, gradients, strict=False):
        _write(written, gradient)


def _as_read(points: Tensor, each: int, weight: Tensor, groups: int, size: torch.Size) -> Tensor:
    """Reads ``points`` as mmcv does: from the start of each image's memory, whatever the size of the map.

    mmdet's DyHead relies on this: it passes the offsets of a larger map.
    """
    channels = each * groups * weight.shape[2] * weight.shape[3]
    needed = channels * size[0] * size[1]
    if points.shape[1:] == (channels, *size) or points.shape[1:].numel() < needed:
        return points  # torchvision reports a wrong shape
    return points.flatten(1)[:, :needed].view(-1, channels, *size)


def _write(written: Tensor, gradient: Tensor) -> None:
    if written.shape != gradient.shape:  # a larger map; the rest has no gradient
        whole = gradient.new_zeros(written.shape).flatten(1)
        whole[:, :gradient.shape[1:].numel()] = gradient.flatten(1)
        gradient = whole.view(written.shape)
    written.copy_(gradient)


def _arguments(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None,
               stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], groups: int,
               offset_groups: int) -> tuple:
    """The arguments in torchvision's order; torchvision always needs a bias and a mask."""
    offset = wide(offset).nan_to_num(FAR, FAR, FAR)
    masked = mask is not None
    mask = mask if masked else input.new_zeros(len(input), 1)
    bias = bias if bias is not None else weight.new_zeros(len(weight))
    return (*(wide(t).contiguous() for t in (input, weight, offset, mask, bias)), *stride, *padding, *dilation, groups,
            offset_groups, masked)


def _convolve(input: Tensor, *others) -> Tensor:
    return torch.ops.torchvision.deform_conv2d(*_arguments(input, *others))


def _convolve_backward(grad_output: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None,
                       bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int],
                       dilation: tuple[int, int], groups: int, offset_groups: int) -> tuple[Tensor, ...]:
    """The gradients of input, weight, offset, mask and bias."""
    arguments = _arguments(input, weight, offset, mask, bias, stride, padding, dilation, groups, offset_groups)
    gradients = list(torch.ops.torchvision._deform_conv2d_backward(wide(grad_output).contiguous(), *arguments))
    # In mmcv a point one whole pixel in front of the map is outside and its offset has no gradient; torchvision gives
    # the slope towards the map. Offsets that start at 0 put every point of the padding there.
    kernel, size = weight.shape[2:], offset.shape[2:]
    points = wide(offset).nan_to_num(FAR, FAR, FAR)
    points = points.unflatten(1, (offset_groups, *kernel, 2))  # (B, groups, kh, kw, 2, h, w)
    outside = torch.zeros_like(points[:, :, :, :, 0], dtype=torch.bool)
    for axis in range(2):
        def along(n: int, dim: int) -> Tensor:
            return torch.arange(n, device=offset.device).view([-1 if d == dim else 1 for d in range(6)])

        base = (along(size[axis], 4 + axis) * stride[axis] - padding[axis]  # noqa: B023  called at once
                + along(kernel[axis], 2 + axis) * dilation[axis])
        place = base + points[:, :, :, :, axis]
        outside |= (place <= -1) | (place >= input.shape[2 + axis])
    gradients[2] = gradients[2].masked_fill(outside.unsqueeze(4).expand_as(points).reshape(offset.shape), 0)
    return tuple(gradients)


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                           sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Multi-scale deformable attention (arXiv:2010.04159), (B, queries, heads * channels).

    Args:
        value: (B, keys, heads, channels), the keys of all levels concatenated.
        value_spatial_shapes: (levels, 2), height and width of each level.
        value_level_start_index: (levels,); unused, since the shapes determine it.
        sampling_locations: (B, queries, heads, levels, points, 2) as x, y from 0 to 1 over the level.
        attention_weights: (B, queries, heads, levels, points).
        im2col_step: See above.
    """
    return _attend(wide(value), value_spatial_shapes, wide(sampling_locations), wide(attention_weights)).to(value.dtype)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                            sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor,
                            grad_value: Tensor, grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    """Writes the gradients of :func:`ms_deform_attn_forward`."""
    gradients = gradients_of(lambda v, s, a: _attend(v, value_spatial_shapes, s, a),
                             (value, sampling_locations, attention_weights), grad_output)
    for written, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        written.copy_(gradient)


def _attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    sizes = shapes.tolist()
    batch, _, heads, channels = value.shape
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * heads, queries, levels, points, 2)
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B * heads, 1, queries, levels, points)
    total = 0
    for level, values in enumerate(value.split([h * w for h, w in sizes], 1)):
        values = values.permute(0, 2, 3, 1).reshape(batch * heads, channels, *sizes[level])
        samples = functional.grid_sample(values, grids[:, :, level], align_corners=False)
        total = total + (samples * weights[..., level, :]).sum(-1)  # (B * heads, channels, queries)
    return total.view(batch, heads * channels, -1).transpose(1, 2).contiguous()


def gradients_of(function: Callable[..., Tensor], inputs: tuple[Tensor, ...],
                 grad_output: Tensor) -> tuple[Tensor, ...]:
    """The gradients of a function's inputs; runs the function again under autograd."""
    with torch.enable_grad():
        leaves = [wide(x.detach()).requires_grad_() for x in inputs]
        return torch.autograd.grad(function(*leaves), leaves, wide(grad_output))
