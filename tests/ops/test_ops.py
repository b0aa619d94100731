"""The depth-wise operators against their plain forms in float64: outputs, gradients, layouts, dtypes, compilation."""
import pytest
import torch
import torch.nn.functional as F

from dwnet.ops import (
    choose_backend,
    depthwise_conv2d,
    dynamic_depthwise_conv2d,
    inhomogeneous_depthwise_conv2d,
    predicted_depthwise_conv2d,
    reference,
)

FORMATS = [torch.contiguous_format, torch.channels_last]
SIZES = [((2, 6, 7, 7), 7), ((2, 3, 9, 9), 3), ((2, 3, 17, 16), 7), ((1, 5, 1, 9), 7), ((3, 4, 6, 5), 3),
         ((2, 2, 4, 4), 1), ((2, 4, 9, 40), 7), ((1, 3, 5, 6), 9), ((3, 4, 2, 5), 7), ((2, 3, 1, 1), 7)]


def naive_dynamic(x, weight, bias=None):
    """One image at a time, each with its own kernel."""
    return torch.cat([
        F.conv2d(x[i:i + 1], weight[i][:, None], bias, padding=weight.shape[-1] // 2, groups=x.shape[1])
        for i in range(len(x))])


def make(operator: str, shape, size, memory_format, device, dtype=torch.float64):
    """The operator, its plain form, and inputs of them."""
    batch, channels, height, width = shape
    x = torch.randn(shape, dtype=dtype, device=device).to(memory_format=memory_format)
    bias = torch.randn(channels, dtype=dtype, device=device)
    if operator == 'static':
        return depthwise_conv2d, reference.depthwise_conv2d, [
            x, torch.randn(channels, 1, size, size, dtype=dtype, device=device), bias]
    if operator == 'dynamic':
        return dynamic_depthwise_conv2d, naive_dynamic, [
            x, torch.randn(batch, channels, size, size, dtype=dtype, device=device), bias]
    groups = channels // 2 if channels % 2 == 0 else channels
    weight = torch.randn(batch, groups, size, size, height, width, dtype=dtype, device=device)
    return inhomogeneous_depthwise_conv2d, reference.inhomogeneous_depthwise_conv2d, [x, weight]


OPERATORS = ['static', 'dynamic', 'inhomogeneous']
every_operator = pytest.mark.parametrize('operator', OPERATORS)
every_format = pytest.mark.parametrize('memory_format', FORMATS, ids=['contiguous', 'channels_last'])


@every_format
@pytest.mark.parametrize('shape, size', SIZES)
@every_operator
def test_outputs_and_gradients(operator, shape, size, memory_format, device):
    function, plain, inputs = make(operator, shape, size, memory_format, device)
    ours, theirs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    y, expected = function(*ours), plain(*theirs)
    assert torch.allclose(y, expected)
    assert y.is_contiguous(memory_format=memory_format)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient)
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(ours, theirs))


@every_format
@pytest.mark.parametrize('operator', ['static', 'dynamic'])
def test_relu_behind_it(operator, memory_format, device):
    function, plain, inputs = make(operator, (2, 4, 6, 5), 3, memory_format, device)
    ours, theirs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    y, expected = function(*ours, relu=True), plain(*theirs).relu()
    assert torch.allclose(y, expected) and (y == 0).any()
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient)
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(ours, theirs))


@pytest.mark.parametrize('shape', [(0, 4, 5, 6), (2, 4, 0, 6)])
def test_empty(shape, device):
    x = torch.zeros(shape, device=device)
    weights = torch.zeros(4, 1, 3, 3), torch.zeros(shape[0], 4, 3, 3), torch.zeros(shape[0], 2, 3, 3, *shape[2:])
    functions = depthwise_conv2d, dynamic_depthwise_conv2d, inhomogeneous_depthwise_conv2d
    for function, weight in zip(functions, weights):
        if function is not depthwise_conv2d or shape[2]:  # PyTorch's own refuses maps without a row
            assert function(x, weight.to(device)).shape == shape
    with torch.no_grad():
        assert predicted_depthwise_conv2d(x, x, *(t.to(device) for t in (
            torch.zeros(18, 4, 1, 1), torch.zeros(18))), 3).shape == shape


@pytest.mark.parametrize('function, shape', [
    (depthwise_conv2d, (4, 1, 3, 3)), (dynamic_depthwise_conv2d, (2, 4, 3, 3))])
def test_wrong_bias(function, shape):
    with pytest.raises(ValueError, match=r'one value a channel, \(4,\), got \(5,\)'):
        function(torch.zeros(2, 4, 5, 6), torch.zeros(shape), torch.zeros(5))


def test_plain_dynamic_form_is_that_of_one_image_after_another():
    x, weight, bias = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 7, 7), torch.randn(4)
    plain = reference.dynamic_depthwise_conv2d(x, weight, bias)
    assert torch.allclose(plain, naive_dynamic(x, weight, bias), atol=1e-5)


@every_operator
def test_without_bias_and_on_a_part_of_a_map(operator, device):
    """x and the gradient may lie scattered in memory."""
    function, plain, (x, weight, *_) = make(operator, (2, 4, 6, 7), 7, torch.channels_last, device)
    big = torch.randn(2, 4, 9, 9, dtype=x.dtype, device=device).to(memory_format=torch.channels_last)
    ours, theirs = (big.clone().requires_grad_() for _ in range(2))
    y, expected = (f(t[:, :, 1:7, 2:], weight) for f, t in ((function, ours), (plain, theirs)))
    assert torch.allclose(y, expected)
    gradient = torch.randn(2, 4, 7, 6, dtype=x.dtype, device=device).transpose(2, 3)
    y.backward(gradient)
    expected.backward(gradient)
    assert torch.allclose(ours.grad, theirs.grad)


def predicted_inputs(height, width, memory_format, device, dtype=torch.float64):
    """x, hidden, weight and bias of 3 images, 8 channels in 4 groups, 5 hidden channels."""
    x, hidden = (torch.randn(3, c, height, width, dtype=dtype, device=device).to(memory_format=memory_format)
                 for c in (8, 5))
    weight, bias = torch.randn(4 * 49, 5, 1, 1, dtype=dtype, device=device), torch.randn(4 * 49, dtype=dtype,
                                                                                         device=device)
    return [x, hidden, weight, bias]


def plain_predicted(x, hidden, weight, bias):
    kernels = F.conv2d(hidden, weight, bias).unflatten(1, (-1, 7, 7))
    return reference.inhomogeneous_depthwise_conv2d(x, kernels)


@every_format
@pytest.mark.parametrize('size', [(5, 40), (40, 5), (9, 11), (1, 1)])
def test_predicted_on_the_way(size, memory_format, device, monkeypatch):
    """In training all kernels are predicted at once, in inference those of some images or of some rows."""
    inputs = predicted_inputs(*size, memory_format, device)
    ours, theirs = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
    y, expected = predicted_depthwise_conv2d(*ours, 7), plain_predicted(*theirs)
    assert torch.allclose(y, expected) and y.is_contiguous(memory_format=memory_format)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient)
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(ours, theirs))
    for kernels, sums in ((2**22, 2**18), (2**22, 8 * 2 * 46 * 11), (196 * 46 * 4, 2**18), (1, 1)):
        monkeypatch.setattr('dwnet.ops.torch_forms.CACHED_KERNELS', kernels)
        monkeypatch.setattr('dwnet.ops.torch_forms.CACHED_SUMS', sums)
        with torch.no_grad():
            y = predicted_depthwise_conv2d(*inputs, 7)
        assert torch.allclose(y, expected) and y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize('training', [False, True])
def test_predicted_compiles_into_one_graph(training, device):
    inputs = predicted_inputs(5, 6, torch.channels_last, device)
    with torch.set_grad_enabled(training):
        y = torch.compile(predicted_depthwise_conv2d, backend='aot_eager', fullgraph=True)(*inputs, 7)
    assert torch.allclose(y, plain_predicted(*inputs))


@pytest.mark.parametrize('training', [False, True])
def test_predicted_in_half_precision(training, device):
    inputs = predicted_inputs(9, 11, torch.channels_last, device, torch.float32)
    expected = plain_predicted(*inputs)
    with torch.set_grad_enabled(training):
        with torch.autocast(device, torch.bfloat16):
            y = predicted_depthwise_conv2d(*inputs, 7)
        assert y.dtype == torch.bfloat16 and (y - expected).norm() < .02 * expected.norm()
        y = predicted_depthwise_conv2d(*(t.bfloat16() for t in inputs), 7)
        assert y.dtype == torch.bfloat16 and (y - expected).norm() < .02 * expected.norm()


@pytest.mark.parametrize('part, size, message', [
    (1, 7, 'hidden'), (2, 7, 'weight must be'), (0, 6, 'k = 6 odd'), (3, 7, 'bias must have')])
def test_predicted_from_the_wrong_shapes(part, size, message):
    inputs = predicted_inputs(4, 5, torch.contiguous_format, 'cpu')
    inputs[part] = inputs[part][:2]
    with pytest.raises(ValueError, match=message):
        predicted_depthwise_conv2d(*inputs, size)


@every_operator
def test_gradcheck(operator, device):
    function, _, inputs = make(operator, (2, 4, 3, 4), 3, torch.channels_last, device)
    assert torch.autograd.gradcheck(function, [t.requires_grad_() for t in inputs])


def test_small_maps_for_the_transforms_of_torch():
    """Their gradient has a form of its own; gradients of it, and of each image, are those of a convolution."""
    x, weight = torch.randn(2, 4, 3, 2, dtype=torch.float64), torch.randn(4, 1, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(depthwise_conv2d, [x.requires_grad_(), weight.requires_grad_()])

    def each(convolution):
        def loss(kernels, image):
            return convolution(image[None], kernels).pow(2).sum()
        return torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, x)

    expected = each(lambda image, kernels: F.conv2d(image, kernels, padding=1, groups=4))
    assert torch.allclose(each(depthwise_conv2d), expected)


@every_format
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@every_operator
def test_dtypes(operator, dtype, memory_format, device):
    """Sums are in float32: the error is that of rounding the result, not of 49 additions."""
    function, plain, inputs = make(operator, (2, 8, 9, 11), 7, memory_format, device, torch.float32)
    inputs = [t.to(dtype).requires_grad_() for t in inputs]
    wide = [t.detach().double().requires_grad_() for t in inputs]
    y, expected = function(*inputs), plain(*wide)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected.backward(gradient.double())
    eps = torch.finfo(dtype).eps
    assert y.dtype == dtype and (y - expected).norm() < 2 * eps * expected.norm()
    for ours, theirs in zip(inputs, wide):
        assert ours.grad.dtype == dtype and (ours.grad - theirs.grad).norm() < 4 * eps * theirs.grad.norm()


@every_operator
def test_autocast(operator, device):
    function, plain, inputs = make(operator, (2, 8, 9, 11), 7, torch.channels_last, device, torch.float32)
    inputs = [t.requires_grad_() for t in inputs]
    with torch.autocast(device, torch.bfloat16):
        y = function(*inputs)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in inputs)
    with torch.autocast(device, torch.bfloat16):
        assert function(*(t.double() for t in inputs)).dtype == torch.float64


@pytest.mark.parametrize('operator, relu', [
    ('static', False), ('dynamic', False), ('dynamic', True), ('inhomogeneous', False)])
def test_registered_as_torch_wants_it(operator, relu, device):
    """Fake kernels, autograd and aliasing, by torch's own checks."""
    _, _, inputs = make(operator, (2, 4, 5, 6), 3, torch.channels_last, device, torch.float32)
    x, weight, bias = [*inputs, None][:3]
    if operator == 'inhomogeneous':
        torch.library.opcheck(torch.ops.dwnet.inhomogeneous_depthwise_conv2d, (
            x.requires_grad_(), weight.requires_grad_(), 'torch'))
    else:
        kernels = weight.transpose(0, 1).contiguous() if operator == 'static' else weight
        torch.library.opcheck(torch.ops.dwnet.depthwise_conv2d, (
            x.requires_grad_(), kernels.requires_grad_(), bias.requires_grad_(), relu, 'torch'))


@every_operator
def test_compiles_into_one_graph(operator, device):
    function, plain, inputs = make(operator, (2, 4, 5, 6), 7, torch.channels_last, device, torch.float32)
    inputs = [t.requires_grad_() for t in inputs]
    y = torch.compile(function, backend='aot_eager', fullgraph=True, dynamic=True)(*inputs)
    assert torch.allclose(y, plain(*inputs), atol=1e-4)
    y.sum().backward()
    assert all(t.grad.isfinite().all() for t in inputs)


@pytest.mark.parametrize('shape', [(2, 3, 4, 4), (1, 3, 7, 7), (2, 3, 7, 5), (2, 4, 7, 7)])
def test_wrong_kernel_shape(shape):
    with pytest.raises(ValueError, match='weight must be'):
        dynamic_depthwise_conv2d(torch.rand(2, 3, 8, 8), torch.rand(shape))
    with pytest.raises(ValueError, match='weight must be'):
        depthwise_conv2d(torch.rand(2, 3, 8, 8), torch.rand(shape))


@pytest.mark.parametrize('shape', [(2, 3, 7, 7, 8), (1, 3, 7, 7, 8, 8), (2, 2, 7, 7, 8, 8), (2, 3, 7, 5, 8, 8),
                                   (2, 3, 4, 4, 8, 8), (2, 3, 7, 7, 8, 7)])
def test_wrong_weight_shape(shape):
    with pytest.raises(ValueError, match='weight must be'):
        inhomogeneous_depthwise_conv2d(torch.rand(2, 3, 8, 8), torch.rand(shape))


def test_the_choice_of_a_backend_gives_its_reason():
    x = torch.rand(1, 2, 3, 3)
    assert choose_backend(x, 'torch') == ('torch', 'asked for')
    with pytest.raises(ValueError, match="'auto', 'torch', 'triton', got 'cuda'"):
        choose_backend(x, 'cuda')
    with pytest.raises(ValueError, match='no kernel for torch.float64'):
        choose_backend(x.double(), 'triton')
    chosen, reason = choose_backend(x.double())
    assert chosen == 'torch' and 'float64' in reason
