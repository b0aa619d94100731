"""A BatchNorm taken into the layer in front of it or behind it, whatever the two look like."""
import pytest
import torch
from torch import nn

from dwnet.models.fold import Affine, fold_into_conv, fold_into_linear, norm_as_affine


def batch_norm(channels: int, **kwargs) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, **kwargs).eval()
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, .1, 2)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


every_norm = pytest.mark.parametrize(
    'options', [{}, dict(affine=False), dict(eps=.1)], ids=['plain', 'no affine', 'eps'])


@every_norm
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('groups, memory_format', [
    (1, torch.contiguous_format), (1, torch.channels_last), (6, torch.channels_last)])
def test_into_a_convolution(groups, memory_format, bias, options):
    conv = nn.Conv2d(6, 6, 3, groups=groups, bias=bias).to(memory_format=memory_format)
    norm, x = batch_norm(6, **options), torch.randn(2, 6, 5, 7)
    expected = norm(conv(x))
    assert isinstance(fold_into_conv(conv, norm), nn.Identity)
    assert torch.allclose(conv(x), expected, atol=1e-5)
    assert conv.weight.is_contiguous(memory_format=memory_format) and conv.bias.requires_grad


@every_norm
def test_into_a_linear_layer_behind(options):
    norm, linear, x = batch_norm(4, **options), nn.Linear(4, 9), torch.randn(2, 4, 5, 7)
    expected = linear(norm(x).permute(0, 2, 3, 1))
    assert isinstance(fold_into_linear(norm, linear), nn.Identity)
    assert torch.allclose(linear(x.permute(0, 2, 3, 1)), expected, atol=1e-5)


@every_norm
def test_left_as_scale_and_shift(options):
    norm, x = batch_norm(4, **options), torch.randn(2, 4, 5, 7)
    affine = Affine.of(norm)
    assert isinstance(affine, Affine) and torch.allclose(affine(x), norm(x), atol=1e-5)


@pytest.mark.parametrize('norm', [nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.BatchNorm2d(4, track_running_stats=False)])
def test_norms_of_the_batch_or_the_image_stay(norm):
    conv, linear = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)
    before = [p.clone() for p in (*conv.parameters(), *linear.parameters())]
    assert norm_as_affine(norm) is None
    assert fold_into_conv(conv, norm) is norm and fold_into_linear(norm, linear) is norm and Affine.of(norm) is norm
    assert all(map(torch.equal, before, (*conv.parameters(), *linear.parameters())))


def test_precision_and_training_flag_of_the_layer_stay():
    conv = nn.Conv2d(3, 4, 1, bias=False).half().requires_grad_(False)
    fold_into_conv(conv, batch_norm(4))
    assert conv.weight.dtype == conv.bias.dtype == torch.float16
    assert not conv.weight.requires_grad and not conv.bias.requires_grad
