"""The Triton kernels against plain PyTorch in float64: on a GPU, or else on the CPU through Triton's interpreter.

Inputs lie in memory that is NaN all around them, and so are outputs, which are NaN before a kernel runs: a
value that is read from outside, or never written, shows.
"""
import importlib
import math
import os

import pytest
import torch
import torch.nn.functional as F

from dwnet.ops import hardware

triton = pytest.importorskip('triton', minversion=hardware.TRITON)
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
with pytest.MonkeyPatch.context() as patch:
    if DEVICE == 'cpu':
        patch.setitem(os.environ, 'TRITON_INTERPRET', '1')  # it is read when the kernels are defined
    kernels = importlib.import_module('dwnet.ops.triton_kernels')

ADD = kernels._add
MARGIN = 1024  # values of NaN before and behind each tensor; a multiple of what GPUs load at once
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}  # relative to the largest value
DTYPES = tuple(TOLERANCE)
CHANNELS_LAST = (0, 4, 5, 1, 2, 3)  # the dimensions of weights (B, G, k, k, H, W) in the order of memory
CONTIGUOUS = (0, 1, 2, 3, 4, 5)
LAYOUTS = ('contiguous', 'channels_last', 'sliced', 'sliced_channels_last')


@pytest.fixture(autouse=True)
def _one_tile(monkeypatch):
    """One tile instead of a search: small, so that small maps have several strips and parts."""
    monkeypatch.setattr(kernels._forward_kernel, 'configs', [triton.Config(dict(most_rows=4, COLS=3, LANE=1))])
    if DEVICE == 'cpu':
        _mend_interpreter(monkeypatch)


def _mend_interpreter(monkeypatch):
    """Triton 3.6 takes int() of arrays of one element for the bounds of a loop, which NumPy 2.4 refuses.

    Triton 3.9 takes a comparison of scalars for an integer when it becomes a block, and no integers for masks.
    """
    from triton.runtime import interpreter
    original, splat = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_splat

    def create_splat(builder, *types_and_value):
        value = types_and_value[-1]
        if value.data.dtype == bool:
            value = interpreter.TensorHandle(value.data, triton.language.int1)
        return splat(builder, *types_and_value[:-1], value)

    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_splat', create_splat)

    def patch_lang_tensor(tensor, scope):
        original(tensor, scope)
        scope.set_attr(tensor, '__index__', lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, '_patch_lang_tensor', patch_lang_tensor)
    # Triton's own sum is taken at once, any other function called for each pair of values.
    monkeypatch.setattr(kernels, '_add', triton.language.standard._sum_combine)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    """What the kernels' module allocates is NaN, and what surrounds it must still be so at the end."""
    memories = []

    def poisoned(function):

        def allocate(*args, **kwargs):
            like = function(*args, **kwargs)
            if not like.numel() or not like.is_floating_point():
                return like
            memory = torch.full((like.numel() + 2 * MARGIN, ), math.nan, dtype=like.dtype, device=like.device)
            memories.append(memory)
            return memory.as_strided(like.shape, like.stride(), MARGIN)

        return allocate

    for owner, name in ((torch, 'empty'), (torch, 'empty_like'), (torch.Tensor, 'new_empty')):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    yield
    for memory in memories:
        assert memory[:MARGIN].isnan().all() and memory[-MARGIN:].isnan().all()


def place(values, dtype=torch.float32, layout='contiguous'):
    """The values in NaN; sliced: a part of larger maps, without their first row and last two columns."""
    outer = list(values.shape)
    if layout.startswith('sliced'):
        outer[2:] = outer[2] + 1, outer[3] + 2
    memory_format = torch.channels_last if layout.endswith('channels_last') else torch.contiguous_format
    strides = torch.zeros(outer).contiguous(memory_format=memory_format).stride()
    memory = torch.full((math.prod(outer) + 2 * MARGIN, ), math.nan, dtype=dtype, device=DEVICE)
    view = memory.as_strided(outer, strides, MARGIN)
    if layout.startswith('sliced'):
        view = view[:, :, 1:, :-2]
    return view.copy_(values)


def check(actual, expected, dtype):
    assert actual.shape == expected.shape and actual.dtype == dtype
    error = (actual.double() - expected).abs().max()  # NaN is not small either
    assert error <= TOLERANCE[dtype] * expected.abs().max()


def check_layout(y, x):
    """Dense, and channels-last if ``x`` is."""
    channels_last = x.stride(1) == 1 and not x.is_contiguous()
    assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def convolve(x, weight):
    """One image at a time; one kernel for all, or for each its own."""
    weights = weight if len(weight) == len(x) else weight.expand(len(x), -1, -1, -1)
    return torch.cat([F.conv2d(image[None], kernel[:, None], padding=weight.shape[-1] // 2, groups=x.shape[1])
                      for image, kernel in zip(x, weights)])


def unfolded(x, weight):
    """All neighbourhoods gathered, multiplied and summed."""
    batch, channels, height, width = x.shape
    groups, size = weight.shape[1:3]
    patches = F.unfold(x, size, padding=size // 2).view(batch, groups, channels // groups, size, size, height, width)
    return (patches * weight[:, :, None]).sum((3, 4)).flatten(1, 2)


def expected_of(function, *tensors):
    """Output and gradients in float64, for the values that the kernels get."""
    inputs = [t.double().requires_grad_() for t in tensors[:2]]
    y = function(*inputs)
    return y.detach(), *torch.autograd.grad(y, inputs, tensors[2].double())


def check_depthwise(shape, size, layout='contiguous', per_image=False, dtype=torch.float32):
    batch, channels = shape[:2]
    x = place(torch.randn(shape), dtype, layout)
    grad_y = place(torch.randn(shape), dtype, layout.removeprefix('sliced_'))  # its strides may differ from x's
    weight = place(torch.randn(batch if per_image else 1, channels, size, size), dtype).mT  # any strides will do
    y, grad_x, grad_weight = expected_of(convolve, x, weight, grad_y)

    actual = kernels.depthwise_forward(x, weight)
    check(actual, y, dtype)
    check_layout(actual, x)
    actual = kernels.depthwise_backward_input(grad_y, weight)
    check(actual, grad_x, dtype)
    check_layout(actual, grad_y)
    actual = kernels.depthwise_backward_weight(grad_y, x, size, per_image)
    check(actual, grad_weight, torch.float32)  # as exact for half precision
    assert actual.is_contiguous()


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('per_image', [False, True])
def test_depthwise(per_image, layout):
    check_depthwise((3, 4, 6, 5), 3, layout, per_image)


@pytest.mark.parametrize('shape, size, layout', [
    ((2, 3, 7, 7), 7, 'contiguous'), ((2, 3, 7, 7), 7, 'sliced_channels_last'), ((1, 5, 1, 9), 7, 'channels_last'),
    ((1, 5, 1, 9), 7, 'sliced'), ((2, 3, 5, 2), 1, 'channels_last'), ((2, 3, 5, 2), 1, 'contiguous'),
    ((2, 3, 4, 8), 9, 'channels_last'), ((2, 3, 2, 5), 9, 'sliced'), ((1, 2, 2, 3), 31, 'channels_last')])
def test_shapes(shape, size, layout):
    check_depthwise(shape, size, layout)


@pytest.mark.parametrize('shape, size, layout', [
    ((2, 33, 15, 17), 3, 'channels_last'), ((1, 70, 3, 40), 3, 'channels_last'), ((1, 70, 3, 40), 7, 'contiguous')])
def test_larger_shapes(shape, size, layout, monkeypatch):
    monkeypatch.setattr(kernels._forward_kernel, 'configs', kernels._CONFIGS[:1])
    check_depthwise(shape, size, layout)


@pytest.mark.parametrize('layout, per_image', [('contiguous', True), ('channels_last', False)])
@pytest.mark.parametrize('dtype', DTYPES[1:])
def test_half_precision(dtype, layout, per_image):
    check_depthwise((2, 3, 4, 5), 3, layout, per_image, dtype)


@pytest.mark.parametrize('layout', LAYOUTS[:2])
@pytest.mark.parametrize('dtype', DTYPES)
def test_bias_and_relu(dtype, layout):
    x, weight, bias = place(torch.randn(2, 3, 4, 5), dtype, layout), *(
        place(torch.randn(shape), dtype) for shape in ((1, 3, 3, 3), (3, )))
    y = convolve(x.double(), weight.double()) + bias.double().view(-1, 1, 1)
    check(kernels.depthwise_forward(x, weight, bias), y, dtype)
    check(kernels.depthwise_forward(x, weight, bias, relu=True), y.relu(), dtype)
    x[1, 2] = math.nan  # is not hidden
    assert kernels.depthwise_forward(x, weight, relu=True).isnan().flatten(2).any(2).tolist() == [
        [False] * 3, [False, False, True]]


@pytest.mark.parametrize('layout, config', [
    (layout, config) for config in kernels._CONFIGS for layout in LAYOUTS[config.kwargs['LANE'] > 1:2]])
def test_tiles_for_gpus(layout, config, monkeypatch):
    monkeypatch.setattr(kernels._forward_kernel, 'configs', [config])
    most_rows, cols, _ = config.kwargs.values()
    # two parts and strips; or one, as wide as the map
    shape = (1, 3, 30, cols + 1) if most_rows == 28 else (2, 3, 3, cols)
    x = place(torch.randn(shape), layout=layout)
    weight = place(torch.randn(1, 3, 3, 3))
    check(kernels.depthwise_forward(x, weight), convolve(x.double(), weight.double()), torch.float32)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('size', [1, 3, 5, 7, 31])
@pytest.mark.parametrize('height', [7, 56])
def test_choice_of_tiles(height, size, channels_last):
    args = dict(height=height, K=size, CHANNELS_LAST=channels_last)
    chosen = kernels._suited_configs(kernels._CONFIGS, args, **args)
    assert {c.kwargs['most_rows'] for c in chosen} == ({28} if height == 7 else {28, 64})
    assert channels_last == any(c.kwargs['LANE'] > 1 for c in chosen)


@pytest.mark.parametrize('shape, layout, programs', [
    ((2, 1, 29, 9), 'contiguous', 1), ((2, 2, 29, 8), 'channels_last', 3), ((3, 2, 3, 8), 'channels_last', 2)])
def test_sums_of_several_parts_of_the_maps(shape, layout, programs, monkeypatch):
    """The gradient of the weight, by programs that walk through many strips, and sums of several programs."""
    monkeypatch.setattr(kernels, 'PROGRAMS', programs)
    monkeypatch.setattr(kernels, 'THREADS', 4)
    monkeypatch.setattr(kernels, '_add', ADD)
    x, grad_y = (place(torch.randn(shape), layout=layout) for _ in range(2))
    weight = torch.zeros(1, shape[1], 3, 3, device=DEVICE)
    expected = expected_of(convolve, x, weight, grad_y)[2]
    actual, again = (kernels.depthwise_backward_weight(grad_y, x, 3, False) for _ in range(2))
    check(actual, expected, torch.float32)
    assert torch.equal(actual, again)


@pytest.mark.parametrize('layouts', [('contiguous', 'channels_last'), ('channels_last', 'sliced'),
                                     ('sliced_channels_last', 'expanded')])
def test_gradient_in_another_format(layouts):
    x = place(torch.randn(2, 3, 4, 5), layout=layouts[0])
    if layouts[1] == 'expanded':  # as behind a sum
        grad_y = torch.ones((), device=DEVICE).expand(x.shape)
    else:
        grad_y = place(torch.randn(x.shape), layout=layouts[1])
    weight = place(torch.randn(1, 3, 3, 3))
    _, grad_x, grad_weight = expected_of(convolve, x, weight, grad_y)
    check(kernels.depthwise_backward_input(grad_y, weight), grad_x, torch.float32)
    check(kernels.depthwise_backward_weight(grad_y, x, 3, False), grad_weight, torch.float32)


def check_inhomogeneous(shape, groups, size, layout='contiguous', order=CONTIGUOUS, dtype=torch.float32):
    batch, _, height, width = shape
    weight = torch.randn(batch, groups, size, size, height, width)
    weight = place(weight.permute(order), dtype).permute([order.index(i) for i in range(6)])
    x, grad_y = (place(torch.randn(shape), dtype, layout) for _ in range(2))
    y, grad_x, grad_weight = expected_of(unfolded, x, weight, grad_y)

    actual = kernels.inhomogeneous_forward(x, weight)
    check(actual, y, dtype)
    check_layout(actual, x)
    actual = kernels.inhomogeneous_backward_input(grad_y, weight)
    check(actual, grad_x, dtype)
    check_layout(actual, grad_y)
    actual = kernels.inhomogeneous_backward_weight(grad_y, x, weight)
    check(actual, grad_weight, dtype)
    assert actual.stride() == weight.stride()


@pytest.mark.parametrize('shape, groups, size, layout, order', [
    *(((2, 6, 4, 5), 2, 3, layout, order) for layout in LAYOUTS for order in (CONTIGUOUS, CHANNELS_LAST)),
    ((2, 6, 4, 5), 2, 3, 'channels_last', (0, 4, 5, 2, 3, 1)),
    ((2, 3, 4, 5), 3, 7, 'channels_last', CHANNELS_LAST),
    ((1, 5, 1, 9), 5, 7, 'contiguous', CONTIGUOUS),
    ((1, 66, 2, 7), 33, 3, 'channels_last', CHANNELS_LAST),
    ((1, 70, 3, 20), 1, 3, 'contiguous', CONTIGUOUS),
    ((1, 70, 3, 20), 1, 3, 'channels_last', CHANNELS_LAST),
    ((2, 4, 1, 130), 2, 3, 'contiguous', CONTIGUOUS),
    ((2, 4, 3, 2), 4, 1, 'channels_last', CHANNELS_LAST),
    ((2, 5, 2, 3), 1, 9, 'channels_last', CHANNELS_LAST),
    ((1, 2, 1, 2), 1, 15, 'contiguous', CONTIGUOUS)])
def test_inhomogeneous(shape, groups, size, layout, order):
    check_inhomogeneous(shape, groups, size, layout, order)


@pytest.mark.parametrize('layout', LAYOUTS[:2])
@pytest.mark.parametrize('dtype', DTYPES[1:])
def test_inhomogeneous_half_precision(dtype, layout):
    check_inhomogeneous((2, 6, 3, 4), 2, 3, layout, dtype=dtype)


@pytest.mark.skipif(DEVICE == 'cuda', reason='a GPU chooses the order')
@pytest.mark.parametrize('layout', LAYOUTS[:2])
def test_programs_in_reverse(layout, monkeypatch):
    """No program may rely on what another writes over its own output."""
    from triton.runtime.interpreter import InterpreterBuilder
    monkeypatch.setattr(InterpreterBuilder, 'set_grid_idx', lambda self, x, *yz: setattr(
        self, 'grid_idx', (self.grid_dim[0] - 1 - x, *yz)))
    check_depthwise((3, 4, 6, 5), 3, layout)
    check_inhomogeneous((2, 6, 4, 5), 2, 3, layout)


@pytest.mark.parametrize('layouts', [('channels_last', 'contiguous'), ('contiguous', 'channels_last')])
@pytest.mark.parametrize('operator', ['static', 'dynamic', 'inhomogeneous'])
def test_as_torch_operators(operator, layouts):
    """What the kernels write lies in memory as the operators promise, whatever the layout of the gradient."""
    x = place(torch.randn(2, 4, 5, 6), layout=layouts[0]).requires_grad_()
    if operator == 'inhomogeneous':
        call = torch.ops.dwnet.inhomogeneous_depthwise_conv2d
        inputs = (x, place(torch.randn(2, 2, 3, 3, 5, 6)).requires_grad_())
    else:
        call = torch.ops.dwnet.depthwise_conv2d
        weight = place(torch.randn(2 if operator == 'dynamic' else 1, 4, 3, 3)).requires_grad_()
        inputs = (x, weight, place(torch.randn(4)).requires_grad_(), True)
    gradient = place(torch.randn(x.shape), layout=layouts[1])
    wanted = [t for t in inputs if isinstance(t, torch.Tensor)]
    results = {backend: call(*inputs, backend) for backend in ('torch', 'triton')}
    gradients = {b: torch.autograd.grad(y, wanted, gradient) for b, y in results.items()}
    for ours, theirs in zip((results['triton'], *gradients['triton']), (results['torch'], *gradients['torch'])):
        assert torch.allclose(ours, theirs, atol=1e-5) and ours.stride() == theirs.stride()
    assert gradients['triton'][0].stride() == x.stride()
    if DEVICE == 'cuda':  # the interpreter cannot run on the fake tensors of this check
        torch.library.opcheck(call, (*inputs, 'triton'))


@pytest.mark.parametrize('shape', [(0, 4, 5, 6), (2, 0, 5, 6), (2, 4, 0, 6), (2, 4, 5, 0)])
def test_empty(shape):
    x, batch, channels = torch.zeros(shape, device=DEVICE), *shape[:2]
    weight = torch.zeros(batch, 1, 3, 3, *shape[2:], device=DEVICE)
    for y in (kernels.depthwise_forward(x, x.new_zeros(1, channels, 3, 3)), kernels.inhomogeneous_forward(x, weight),
              kernels.depthwise_backward_input(x, x.new_zeros(batch, channels, 3, 3)),
              kernels.inhomogeneous_backward_input(x, weight)):
        assert y.shape == shape
    for per_image in (False, True):
        expected = torch.zeros(batch if per_image else 1, channels, 3, 3, device=DEVICE)
        assert torch.equal(kernels.depthwise_backward_weight(x, x, 3, per_image), expected)
    actual = kernels.inhomogeneous_backward_weight(x, x, weight)
    assert actual.shape == weight.shape


def test_more_values_than_32_bits_count():
    """Images 2³⁰ values apart, in memory of which only the images are touched."""
    stride = 2**30 + 64
    try:
        memory = torch.zeros(0, device=DEVICE, dtype=torch.float16).resize_(2 * stride + 64)
    except RuntimeError:
        pytest.skip('too little memory')
    for strides in ((stride, 9, 3, 1), (stride, 1, 6, 2)):
        x = memory.as_strided((3, 2, 3, 3), strides).copy_(torch.randn(3, 2, 3, 3))
        weight = place(torch.randn(1, 2, 3, 3))
        y, grad_x, grad_weight = expected_of(convolve, x, weight, x)
        check(kernels.depthwise_forward(x, weight), y, torch.float16)
        check(kernels.depthwise_backward_input(x, weight), grad_x, torch.float16)
        check(kernels.depthwise_backward_weight(x, x, 3, False), grad_weight, torch.float32)
        weight = place(torch.randn(3, 1, 3, 3, 3, 3))
        y, grad_x, grad_weight = expected_of(unfolded, x, weight, x)
        check(kernels.inhomogeneous_forward(x, weight), y, torch.float16)
        check(kernels.inhomogeneous_backward_input(x, weight), grad_x, torch.float16)
        check(kernels.inhomogeneous_backward_weight(x, x, weight), grad_weight, torch.float32)


@pytest.mark.skipif(DEVICE == 'cpu', reason='needs a GPU')
def test_search_for_the_best_tile(monkeypatch):
    monkeypatch.setattr(kernels._forward_kernel, 'configs', kernels._CONFIGS)
    for height in (14, 15):
        check_depthwise((8, 64, height, 14), 7, 'channels_last', dtype=torch.bfloat16)
