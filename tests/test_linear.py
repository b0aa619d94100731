"""The fused Linear layer is PyTorch's own, whatever it gets."""
import pytest
import torch
import torch.nn.functional as F

from dwnet.ops import linear

INPUTS = {'rows': (4, 6), 'map': (2, 6, 5, 3), 'empty': (0, 6)}


@pytest.mark.parametrize('gelu', [False, True])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('shape', INPUTS.values(), ids=INPUTS)
def test_values(shape, dtype, gelu, device):
    x, weight, bias = (torch.randn(s, device=device, dtype=dtype) for s in (shape, (9, 6), (9, )))
    if x.dim() == 4:
        x = x.permute(0, 2, 3, 1)
    expected = F.linear(x.double(), weight.double(), bias.double())
    expected = F.gelu(expected) if gelu else expected
    with torch.inference_mode():
        y = linear(x, weight, bias, gelu)
    assert y.dtype == dtype and y.shape == expected.shape
    assert (y - expected).norm() <= 4 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_residual(dtype, device):
    x, weight, bias, residual = (torch.randn(s, device=device, dtype=dtype) for s in (
        (2, 6, 5, 3), (9, 6), (9, ), (2, 9, 5, 3)))
    x, residual = x.permute(0, 2, 3, 1), residual.permute(0, 2, 3, 1)
    before, expected = residual.clone(), residual.double() + F.linear(x.double(), weight.double(), bias.double())
    with torch.no_grad():
        y = linear(x, weight, bias, residual=residual)
    assert torch.equal(residual, before)
    assert y.dtype == dtype and (y - expected).norm() <= 4 * torch.finfo(dtype).eps * expected.norm()
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        y = linear(x.float(), weight.float(), bias.float(), residual=residual.float())
    assert y.dtype == torch.float32 and (y - expected).norm() < .02 * expected.norm()


@pytest.mark.parametrize('grad', [False, True])
def test_autocast_and_gradients(grad, device):
    x, weight, bias = (torch.randn(s, device=device) for s in ((4, 6), (9, 6), (9, )))
    with torch.set_grad_enabled(grad), torch.autocast(device, torch.bfloat16):
        y = linear(x, weight.requires_grad_(), bias, gelu=True)
    assert y.dtype == torch.bfloat16 and y.requires_grad == grad
    assert (y - F.gelu(F.linear(x, weight, bias))).norm() < .02 * y.norm()


def test_compiles_into_one_graph(device):
    inputs = [torch.randn(s, device=device) for s in ((4, 6), (9, 6), (9, ))]
    with torch.no_grad():
        y = torch.compile(linear, backend='aot_eager', fullgraph=True)(*inputs, True)
    assert torch.allclose(y, F.gelu(F.linear(*inputs)), atol=1e-6)


def test_it_is_fused_where_it_can_be(monkeypatch):
    """The operator is PyTorch's, yet not in its documentation: where a release lacks it, the plain form runs."""
    inputs = [torch.randn(s) for s in ((4, 6), (9, 6), (9, ))]

    def names() -> list[str]:
        with torch.no_grad(), torch.profiler.profile() as profile:
            linear(*inputs, gelu=True)
        return [event.key for event in profile.key_averages()]

    assert 'mkldnn::_linear_pointwise' in names() and 'aten::gelu' not in names()
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    assert 'mkldnn::_linear_pointwise' not in names() and 'aten::gelu' in names()
