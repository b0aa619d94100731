"""The backbone: official outputs, sizes, arguments, gradients."""
import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dwnet import TOKEN_MIXERS, DWNet
from dwnet.models.layers import Mlp, PatchEmbed, PatchMerging, as_convolutions, pad_to_multiple
from dwnet.models.mixers import InhomogeneousDepthwiseConv, LocalMlp

NANO = dict(embed_dims=16, depths=(1, 1, 2, 1))
MIXERS = list(TOKEN_MIXERS.module_dict)
DENSE = dict(out_norm_cfg=dict(type='BN'), pad_to_window=True)


def randomise_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, .5, 1.5)
            nn.init.uniform_(module.running_mean, -.2, .2)
            nn.init.uniform_(module.running_var, .5, 1.5)


@pytest.mark.parametrize('size', [(32, 32), (33, 65), (57, 91), (5, 130)])
@pytest.mark.parametrize('dense', [False, True])
@pytest.mark.parametrize('mixer', MIXERS)
def test_any_size(mixer, dense, size, device):
    model = DWNet(NANO, mixer, **(DENSE if dense else {})).to(device)
    maps = model(torch.rand(2, 3, *size, device=device))
    assert [tuple(y.shape) for y in maps] == [
        (2, 16 * 2**i, -(-size[0] // 2**(i + 2)), -(-size[1] // 2**(i + 2))) for i in range(4)]
    assert all(y.isfinite().all() for y in maps)


def test_padding_to_windows_changes_odd_maps_only():
    model = DWNet(NANO, out_indices=0).eval()
    padded = DWNet(NANO, out_indices=0, pad_to_window=True).eval()
    randomise_norms(model)
    padded.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 56, 56)  # 14×14 patches
    assert torch.equal(model(x)[0], padded(x)[0])
    x = torch.rand(1, 3, 60, 56)
    assert not torch.allclose(model(x)[0], padded(x)[0], atol=1e-4)


@pytest.mark.parametrize('mixer', MIXERS)
@pytest.mark.parametrize(
    'out_indices', [c for n in range(1, 5) for c in itertools.combinations(range(4), n)])
def test_every_parameter_has_a_gradient(mixer, out_indices, device):
    model = DWNet(NANO, mixer, out_indices=out_indices, drop_path_rate=0.).to(device)
    model.init_weights()
    maps = model(torch.randn(2, 3, 64, 64, device=device))
    assert len(maps) == len(out_indices)
    sum((y * torch.randn_like(y)).sum() for y in maps).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize('mixer', MIXERS)
def test_checkpointing_changes_nothing_but_memory(mixer, device):
    plain = DWNet(NANO, mixer, frozen_stages=0).to(device)
    plain.init_weights()
    saving = DWNet(NANO, mixer, frozen_stages=0, with_cp=True).to(device)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 40, 56, device=device)  # needs no gradient, and neither does the frozen stem
    target = None
    for model in (plain, saving):
        y = model(x)[-1]
        target = torch.randn_like(y) if target is None else target
        (y * target).sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-5), name
    for (name, a), b in zip(plain.named_buffers(), saving.buffers()):
        assert torch.allclose(a, b), f'{name}: running statistics counted twice'


@pytest.mark.parametrize('stages, frozen', [(-1, []), (0, ['patch_embed']),
                                            (2, ['patch_embed', 'stages.0', 'stages.1', 'norms.ln0', 'norms.ln1'])])
def test_frozen_stages(stages, frozen):
    model = DWNet(NANO, frozen_stages=stages)
    for mode in (True, False, True):
        model.train(mode)
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad != name.startswith(tuple(frozen)), name
        for name, module in model.named_modules():
            if name.startswith(tuple(f'{f}.' for f in frozen)) and frozen:
                assert not module.training, name
            elif name and mode and not name.startswith(tuple(frozen) or ('-', )):
                assert module.training, name
    before = copy.deepcopy({k: v for k, v in model.state_dict().items() if k.startswith(tuple(frozen) or ('-', ))})
    model.train()(torch.randn(2, 3, 64, 64))
    after = model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items()), 'frozen statistics moved'


def test_drop_path_grows_linearly():
    model = DWNet('tiny', drop_path_rate=.22)
    rates = [block.drop_path.drop_prob for stage in model.stages for block in stage.blocks]
    assert np.allclose(rates, np.linspace(0, .22, 12))


def test_initialisation():
    model = DWNet(NANO)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert .01 < module.weight.std() < .03 and (module.bias is None or not module.bias.any())


def test_norm_cfg_reaches_every_norm():
    model = DWNet(NANO, 'dynamic', norm_cfg=dict(type='SyncBN', eps=1e-3), out_norm_cfg=dict(type='SyncBN'))
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 5 * 5 + 4 and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert len(DWNet(NANO, out_norm_cfg=None).norms) == 0


@pytest.mark.parametrize('arguments, message', [
    (dict(arch='tinny'), "arch must be one of 'tiny', 'base', got 'tinny'; did you mean 'tiny'?"),
    (dict(arch=dict(embed_dims=8)), "four 'depths'"),
    (dict(arch=dict(embed_dims=8, depths=(1, 1, 1))), "four 'depths'"),
    (dict(token_mixer='dynamc'), "did you mean 'dynamic'?"),
    (dict(out_indices=(0, 4)), 'out_indices must name stages 0 to 3, got (0, 4)'),
    (dict(out_indices=()), 'out_indices'),
    (dict(frozen_stages=5), 'frozen_stages must be -1 (none) to 4 (all), got 5'),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        DWNet(**arguments)
    assert message in str(error.value)


def test_out_indices_keep_their_order():
    assert DWNet(NANO, out_indices=-1).out_indices == (3, )
    shapes = [y.shape[1] for y in DWNet(NANO, out_indices=(2, 0))(torch.rand(2, 3, 32, 32))]
    assert shapes == [64, 16]


def test_one_image_in_training_is_an_error_with_a_remedy():
    model = DWNet(NANO, 'dynamic')
    with pytest.raises(ValueError, match='2 or more images.*batch_size'):
        model(torch.rand(1, 3, 64, 64))
    assert model.eval()(torch.rand(1, 3, 64, 64))[0].isfinite().all()


def test_patch_merging_order_and_padding():
    """Neighbours in the order (0, 0), (1, 0), (0, 1), (1, 1); an odd edge meets zeros."""
    merge = PatchMerging(1)
    merge.norm = nn.Identity()
    merge.reduction = nn.Identity()
    x = torch.arange(1., 10.).view(1, 1, 3, 3)
    assert merge(x)[0, :, 0, 0].tolist() == [1, 4, 2, 5]
    assert merge(x)[0, :, 1, 1].tolist() == [9, 0, 0, 0]
    assert pad_to_multiple(torch.ones(1, 1, 5, 8), 4).sum((1, 2)).tolist() == [[5.] * 8]


@pytest.mark.parametrize('stride', [32, 16, 8])
def test_linear_layers_as_convolutions(stride):
    """The same maps at odd sizes, also where the mean of a merging's neighbours is ten times their deviation."""
    model = DWNet(NANO, output_stride=stride).double().eval()
    randomise_norms(model)
    merge = PatchMerging(5, dilation={32: 0, 16: 1, 8: 2}[stride]).double()
    for norm in (*(m for m in model.modules() if isinstance(m, nn.LayerNorm)), merge.norm):
        nn.init.uniform_(norm.weight, .5, 1.5)
        nn.init.uniform_(norm.bias, -.5, .5)
    inputs = {model: torch.randn(2, 3, 75, 90), merge: torch.randn(2, 5, 7, 10) + 10}
    for module, x in inputs.items():
        before = module(x.double())
        as_convolutions(module)
        parts = [part for part in module.modules() if isinstance(part, (PatchEmbed, PatchMerging, Mlp))]
        assert parts and all(part.convolutions for part in parts)
        after = module(x.double())
        for ours, theirs in zip(*((y if isinstance(y, tuple) else (y, )) for y in (after, before)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    flat = torch.linspace(20, 40, 256).view(256, 1, 1, 1).expand(256, 5, 4, 4)
    assert merge.float()(flat).isfinite().all(), 'rounding made a variance below 0'


def test_a_merging_as_a_convolution_in_bfloat16():
    """Nearly as near to float32 as norm and Linear layer are, where the mean is as large as the deviation."""
    merge, x = PatchMerging(32), torch.randn(2, 32, 16, 16) + 1
    expected = merge(x)
    half = copy.deepcopy(merge).bfloat16()
    errors = []
    for _ in range(2):
        errors.append(((half(x.bfloat16()) - expected).norm() / expected.norm()).item())
        as_convolutions(half)
    assert errors[1] < 3 * errors[0] < .05


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('mixer', MIXERS)
def test_half_precision(mixer, autocast, dtype, device):
    """Whole or by autocast: outputs near those in float64, and a training step with finite gradients.

    The outputs are compared in eval mode: batch statistics over the three pooled values of a dynamic layer
    enlarge any rounding.
    """
    exact = DWNet(NANO, mixer, **DENSE).to(device).double().eval()
    randomise_norms(exact)
    half = copy.deepcopy(exact).to(torch.float32 if autocast else dtype)
    x = torch.randn(3, 3, 75, 90, device=device)
    with torch.autocast(device, dtype, enabled=autocast), torch.no_grad():
        for ours, theirs in zip(half(x if autocast else x.to(dtype)), exact(x.double())):
            error = (ours.double() - theirs).norm() / theirs.norm()
            assert error < 8 * torch.finfo(dtype).eps, error
    # anew: older PyTorch kept the weights that autocast had converted where nothing was recorded
    with torch.autocast(device, dtype, enabled=autocast):
        maps = half.train()(x if autocast else x.to(dtype))
    sum(y.float().square().mean() for y in maps).backward()
    assert all(p.grad.isfinite().all() for p in half.parameters())


def test_groups_of_the_inhomogeneous_kernel():
    for dim in (96, 192, 384, 768, 128, 1024):
        assert InhomogeneousDepthwiseConv(dim, dict(type='BN')).groups == 32


@pytest.mark.parametrize('training, size', [(True, 28), (False, 112)])
def test_no_copies_of_the_neighbourhoods(training, size):
    """Nothing is larger than the predicted kernels, and in inference on a CPU not even they exist as a whole."""
    from torch.utils._python_dispatch import TorchDispatchMode
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.untyped_storage().nbytes() // 4)
            return out

    operator = InhomogeneousDepthwiseConv(128, dict(type='BN')).eval()
    with torch.set_grad_enabled(training), Watch():
        y = operator(torch.rand(2, 128, size, size))
        if training:
            y.sum().backward()
    kernels = 2 * 32 * 49 * size**2
    assert largest == kernels if training else largest < kernels / 4


def local_mlp_by_loops(mixer: LocalMlp, x: torch.Tensor) -> torch.Tensor:
    """Every output position sums over those of its window, one by one."""
    _, channels, height, width = x.shape
    values = F.linear(x.permute(0, 2, 3, 1), mixer.value.weight, mixer.value.bias)
    before = 4 if mixer.shift and min(height, width) > 7 else 0
    y = torch.zeros_like(values)
    for i, j, k, m in itertools.product(range(height), range(width), range(height), range(width)):
        (row, r), (column, c) = divmod(i + before, 7), divmod(j + before, 7)
        (other_row, other_r), (other_column, other_c) = divmod(k + before, 7), divmod(m + before, 7)
        if (row, column) == (other_row, other_column):
            weight = mixer.weight[:, r * 7 + c, other_r * 7 + other_c].repeat_interleave(channels // mixer.heads)
            y[:, i, j] += weight * values[:, k, m]
    return F.linear(y, mixer.proj.weight, mixer.proj.bias).permute(0, 3, 1, 2)


@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('size', [(7, 7), (5, 9), (14, 8), (10, 11)])
def test_local_mlp_against_loops(size, shifted):
    mixer = LocalMlp(64, shifted=shifted).double()
    x = torch.randn(2, 64, *size, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(mixer(x), local_mlp_by_loops(mixer, x), rtol=1e-9, atol=1e-9)


def test_every_second_block_of_local_mlp_is_shifted():
    model = DWNet('tiny', 'local_mlp')
    assert [[block.mixer.shift for block in stage.blocks] for stage in model.stages] == [
        [0, 3], [0, 3], [0, 3, 0, 3, 0, 3], [0, 3]]
    assert [stage.blocks[0].mixer.heads for stage in model.stages] == [3, 6, 12, 24]


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('mixer', ['static', 'dynamic'])
def test_no_hidden_copies(mixer, deploy):
    """From the patch embedding on maps stay channels-last; copied are the image, what is merged, and the outputs.

    Within the operators, which it does not look into, a dynamic map is put together image by image on a CPU.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    copies = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.name() in ('aten::clone', 'aten::copy_', 'aten::_to_copy', 'aten::cat'):
                copies.append(function.name())
            return function(*args, **(kwargs or {}))

    model = DWNet(NANO, mixer, deploy=deploy).eval()
    with torch.no_grad(), Watch():
        maps = model(torch.rand(2, 3, 64, 64))
    assert copies == ['aten::clone', 'aten::cat', 'aten::cat', 'aten::cat', *['aten::clone'] * 4]
    assert all(y.is_contiguous() for y in maps), 'as DMNet needs them, whose head takes views'


@pytest.mark.parametrize('with_cp', [False, True])
def test_compiled_training_is_the_training(with_cp):
    """Outputs, gradients, and BatchNorm's statistics, which recomputation must not count twice."""
    plain = DWNet(dict(embed_dims=16, depths=(1, 1, 1, 1)), with_cp=with_cp).train()
    model = copy.deepcopy(plain)
    compiled = torch.compile(model, backend='aot_eager')
    x = torch.randn(2, 3, 36, 45)
    expected, maps = plain(x), compiled(x)
    sum(y.square().mean() for y in expected).backward()
    sum(y.square().mean() for y in maps).backward()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(maps, expected))
    for (name, a), b in zip(model.named_parameters(), plain.parameters()):
        assert torch.allclose(a.grad, b.grad, atol=1e-4), name
    for (name, a), b in zip(model.named_buffers(), plain.buffers()):
        assert torch.allclose(a, b, atol=1e-5), name
