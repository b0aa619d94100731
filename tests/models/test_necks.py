"""The neck that adds maps behind DWNet."""
import pytest
import torch
from mmengine.registry import MODELS

from dwnet.models import ExtraMaps


@pytest.mark.parametrize('number', [1, 3])
@pytest.mark.parametrize('size', [(4, 6), (5, 9)])
def test_maps_are_appended_and_halved(number, size):
    maps = [torch.rand(2, 4, 16, 16), torch.rand(2, 8, *size, requires_grad=True)]
    neck = MODELS.build(dict(type='dwnet.ExtraMaps', channels=8, number=number))
    out = neck(maps)
    assert isinstance(neck, ExtraMaps) and len(out) == 2 + number
    assert out[0] is maps[0] and out[1] is maps[1]
    height, width = size
    for extra in out[2:]:
        height, width = -(-height // 2), -(-width // 2)
        assert extra.shape == (2, 8, height, width)
    out[-1].square().sum().backward()
    assert maps[1].grad.any() and all(p.grad is not None for p in neck.parameters())
