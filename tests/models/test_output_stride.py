"""Late stages that keep their resolution: dilated kernels see what the kernels of the usual network see."""
import copy

import pytest
import torch
import torch.nn.functional as F
from test_dwnet import NANO, randomise_norms

from dwnet import DWNet
from dwnet.models.layers import put_together, take_apart
from dwnet.models.mixers import DynamicDepthwiseConv, StaticDepthwiseConv


@pytest.mark.parametrize('size', [(64, 96), (61, 107), (33, 5)])
@pytest.mark.parametrize('stride', [16, 8])
def test_every_second_position_is_that_of_the_usual_network(stride, size):
    usual, fine = (DWNet(NANO, output_stride=s).eval() for s in (32, stride))
    randomise_norms(usual)
    fine.load_state_dict(usual.state_dict())
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        for i, (ours, theirs) in enumerate(zip(fine(x), usual(x))):
            assert ours.shape[2:] == tuple(-(-length // min(2**(i + 2), stride)) for length in size)
            step = max(1, 2**(i + 2) // stride)
            assert torch.allclose(ours[..., ::step, ::step], theirs, atol=1e-5)


@pytest.mark.parametrize('step', [2, 3, 4])
@pytest.mark.parametrize('mixer', [StaticDepthwiseConv, DynamicDepthwiseConv])
def test_a_dilated_mixer_is_a_dilated_convolution(mixer, step):
    """Outputs and gradients as those of PyTorch's convolution, in float64, at sizes that the step does not divide."""
    layer = mixer(8, norm_cfg=dict(type='BN'), kernel_size=5, dilation=step).double()
    x = torch.randn(3, 8, 11, 13, dtype=torch.float64, requires_grad=True)
    kernel = layer.predict_kernel(x)  # (B, C, k, k)
    expected = F.conv2d(x.flatten(0, 1)[None], kernel.reshape(24, 1, 5, 5), padding=2 * step, dilation=step,
                        groups=24).view(x.shape) + layer.bias.view(-1, 1, 1)
    y = layer(x)
    assert torch.allclose(y, expected) and torch.allclose(layer(x, relu=True), expected.relu())
    weights = torch.randn_like(y)
    parameters = [x, *layer.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad((out * weights).sum(), parameters) for out in (y, expected))):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize('mixer', ['static', 'dynamic'])
def test_folding_and_training(mixer):
    model = DWNet(NANO, mixer, output_stride=8)
    model(torch.rand(2, 3, 40, 40))[3].square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None and not name.startswith('norms.')] == []
    randomise_norms(model.eval())
    folded = copy.deepcopy(model)
    folded.switch_to_deploy()
    x = torch.rand(2, 3, 40, 52)
    with torch.no_grad():
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(folded(x), model(x)))


def test_parts_and_whole():
    x = torch.arange(2. * 3 * 5 * 7).view(2, 3, 5, 7)
    parts = take_apart(x, 2)
    assert parts.shape == (8, 3, 3, 4) and torch.equal(parts[5, :, :, :3], x[1, :, ::2, 1::2])
    assert torch.equal(put_together(parts, 2, 5, 7), x)


@pytest.mark.parametrize('arguments, message', [
    (dict(output_stride=4), '8, 16 or 32'),
    (dict(output_stride=8.), '8, 16 or 32, got 8.0'),
    (dict(output_stride=16, token_mixer='local_mlp'), "dilated.*got 'local_mlp'"),
    (dict(output_stride=8, token_mixer='inhomogeneous'), 'static or dynamic'),
    (dict(output_stride=16, pad_to_window=True), 'pad_to_window=False'),
])
def test_what_cannot_be_dilated(arguments, message):
    with pytest.raises(ValueError, match=message):
        DWNet(NANO, **arguments)
