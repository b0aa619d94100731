"""The depth-wise operators against plain forms of them, outputs and gradients."""
import pytest
import torch
import torch.nn.functional as F

from dwnet.ops import dynamic_depthwise_conv2d, inhomogeneous_depthwise_conv2d


def naive(x, weight, bias):
    """One image at a time, each with its own kernel."""
    size = weight.shape[-1]
    return torch.cat([
        F.conv2d(x[i:i + 1], weight[i][:, None], bias, padding=size // 2, groups=x.shape[1])
        for i in range(len(x))])


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('shape, size', [((2, 3, 7, 7), 7), ((1, 5, 1, 9), 7), ((3, 4, 6, 5), 3), ((2, 2, 4, 4), 1)])
def test_dynamic_depthwise(shape, size, memory_format, device):
    batch, channels = shape[:2]
    shapes = (shape, (batch, channels, size, size), (channels, ))
    inputs = [torch.randn(s, dtype=torch.float64, device=device) for s in shapes]
    inputs[0] = inputs[0].to(memory_format=memory_format)
    ours, theirs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    y, expected = dynamic_depthwise_conv2d(*ours), naive(*theirs)
    assert torch.allclose(y, expected)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient)
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(ours, theirs))
    assert torch.allclose(dynamic_depthwise_conv2d(*inputs[:2]), naive(*inputs[:2], None))


@pytest.mark.parametrize('shape', [(2, 3, 4, 4), (1, 3, 7, 7), (2, 3, 7, 5), (2, 4, 7, 7)])
def test_wrong_kernel_shape(shape):
    with pytest.raises(ValueError, match='weight must be'):
        dynamic_depthwise_conv2d(torch.rand(2, 3, 8, 8), torch.rand(shape))


def unfolded(x, weight):
    """All neighbourhoods gathered, multiplied and summed."""
    batch, channels, height, width = x.shape
    groups, size = weight.shape[1:3]
    patches = F.unfold(x, size, padding=size // 2).view(batch, groups, channels // groups, size, size, height, width)
    return (patches * weight[:, :, None]).sum((3, 4)).flatten(1, 2)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('shape, groups, size', [
    ((2, 6, 7, 7), 2, 7), ((1, 5, 1, 9), 5, 7), ((3, 4, 6, 5), 1, 3), ((2, 2, 4, 4), 2, 1), ((1, 8, 3, 2), 4, 5)])
def test_inhomogeneous_depthwise(shape, groups, size, memory_format, device):
    batch, _, height, width = shape
    shapes = (shape, (batch, groups, size, size, height, width))
    inputs = [torch.randn(s, dtype=torch.float64, device=device) for s in shapes]
    inputs[0] = inputs[0].to(memory_format=memory_format)
    ours, theirs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    y, expected = inhomogeneous_depthwise_conv2d(*ours), unfolded(*theirs)
    assert torch.allclose(y, expected)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient)
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(ours, theirs))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_inhomogeneous_sums_in_float32(dtype, device):
    x = torch.randn(2, 8, 9, 9, device=device).to(dtype)
    weight = torch.randn(2, 4, 7, 7, 9, 9, device=device).to(dtype)
    y, expected = inhomogeneous_depthwise_conv2d(x, weight), unfolded(x.double(), weight.double())
    assert y.dtype == dtype and (y - expected).norm() < torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize('shape', [(2, 3, 7, 7, 8), (1, 3, 7, 7, 8, 8), (2, 2, 7, 7, 8, 8), (2, 3, 7, 5, 8, 8),
                                   (2, 3, 4, 4, 8, 8), (2, 3, 7, 7, 8, 7)])
def test_wrong_weight_shape(shape):
    with pytest.raises(ValueError, match='weight must be'):
        inhomogeneous_depthwise_conv2d(torch.rand(2, 3, 8, 8), torch.rand(shape))
