"""The stand-in for mmcv's operators against compiled mmcv, or against the formula where that has none on the CPU."""
import re
from pathlib import Path

import mmcv_cases
import pytest
import torch
from conftest import ROOT
from mmcv import ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from mmcv_oracle import DATA, SEEDS, TOLERANCE, deviations, results
from safetensors.torch import load_file
from torch.nn import functional
from torchvision.ops import roi_align

from dwnet.compat import mmcv_ops
from dwnet.compat.mmcv_ops.ext import COVERED

pytestmark = pytest.mark.skipif(not mmcv_ops.in_use(), reason='waits for an mmcv without compiled operators')


@pytest.fixture(scope='module')
def found():
    """The largest deviation of each operator from what compiled mmcv returned, by ``make oracle``."""
    return deviations(load_file(DATA), results(SEEDS))


@pytest.mark.parametrize('name', mmcv_cases.CASES)
def test_as_compiled(name, found):
    assert found[name] <= TOLERANCE


def test_deviations_are_seen():
    kept = {'a/0/0': torch.zeros(2), 'b/0/0': torch.tensor([1, 2]), 'c/0/0': torch.tensor([torch.nan])}
    other = {'a/0/0': torch.tensor([0, .5]), 'b/0/0': torch.tensor([2, 1]), 'c/0/0': torch.tensor([0.])}
    assert deviations(kept, kept) == dict(a=0, b=0, c=0)
    assert deviations(kept, other) == dict(a=.5, b=torch.inf, c=torch.inf)
    assert deviations(kept, {}) == dict(a=torch.inf, b=torch.inf, c=torch.inf)


@pytest.mark.parametrize('offset', [0, 1])
def test_an_overlap_that_equals_the_threshold_stays(offset, device):
    """In float32, in which mmcv has both."""
    boxes = torch.tensor([[0, 0, 10 - offset, 10 - offset], [0, 0, 10 - offset, 1 - offset]], device=device)
    for threshold, kept in ((.1, 2), (.0999, 1)):
        assert len(ops.nms(boxes.float(), torch.tensor([.9, .8], device=device), threshold, offset=offset)[1]) == kept


def test_the_page_lists_every_operator():
    """docs/mmcv_operators.md: what is covered in its table, all the rest of mmcv below."""
    page = (ROOT / 'docs/mmcv_operators.md').read_text()
    covered = page[:page.index('## What is not')]
    rows = [line.split('|')[2] for line in covered.splitlines() if line.startswith('| `')]
    assert set(re.findall(r'`(\w+)`', ''.join(rows))) == set(COVERED)
    stems = re.findall(r'`([…\w]+)`', page[page.index('## What is not'):page.index('## In every process')])
    loaded = ''.join(re.findall(r"load_ext\(\s*'_ext',\s*\[(.*?)\]", ''.join(
        file.read_text() for file in Path(ops.__file__).parent.glob('*.py')), re.S))
    others = set(re.findall(r"'(\w+)'", loaded)) - set(COVERED)
    assert len(others) > 40
    for name in others:
        assert name.startswith('get_compil') or any(stem.strip('…_') in name for stem in stems), name


# Below, what mmcv compiles for GPUs only

def assert_same(ours, theirs, inputs, others=None, tolerance=TOLERANCE):
    """Values and gradients; ``others`` are the inputs of the reference, in float64 if not given."""
    others = others or [x.detach().double().requires_grad_() for x in inputs]
    ours, theirs = ours(*inputs), theirs(*others)
    gradient = torch.randn(ours.shape).to(ours)
    pairs = [(ours, theirs), *zip(torch.autograd.grad(ours, inputs, gradient),
                                  torch.autograd.grad(theirs, others, gradient.double()))]
    for a, b in pairs:
        assert a.shape == b.shape
        assert ((a - b).abs() <= tolerance * b.abs().clamp(min=1)).all()


def leaf(*shape, device='cpu', dtype=torch.float32):
    return torch.randn(*shape, device=device).to(dtype).requires_grad_()


def focal(p, is_target, gamma, alpha):
    loss = torch.where(is_target, -alpha * (1 - p)**gamma * p.log(), -(1 - alpha) * p**gamma * (1 - p).log())
    return loss


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_focal_losses(weighted, reduction, device):
    x = leaf(7, 4, device=device)
    classes = torch.tensor([0, 3, 1, 2, 0, 4, 4], device=device)  # 4: background
    weight = torch.rand(4, device=device) if weighted else None
    of_target = torch.cat([weight, torch.ones(1, device=device)])[classes].double() if weighted else torch.ones(
        7, device=device)
    reduce = dict(none=lambda t: t, mean=lambda t: t.sum() / 7, sum=torch.sum)[reduction]
    one_hot = functional.one_hot(classes, 5)[:, :4].bool()
    assert_same(lambda x: ops.sigmoid_focal_loss(x, classes, 2., .25, weight, reduction),
                lambda x: reduce(focal(x.sigmoid(), one_hot, 2., .25) * of_target[:, None]), [x])
    if reduction != 'none':  # mmcv multiplies (N, classes) by (N,) there
        known = torch.where(classes < 4, classes, -1)  # softmax: no class, no loss
        assert_same(lambda x: ops.softmax_focal_loss(x, known, 2., .25, weight, reduction),
                    lambda x: reduce((focal(x.softmax(1), one_hot, 2., .25) * one_hot).sum(1) * of_target), [x])


def test_focal_loss_of_certainty(device):
    x = torch.tensor([[200., -200.], [-200., 200.]], device=device, requires_grad=True)
    loss = ops.sigmoid_focal_loss(x, torch.tensor([0, 0], device=device), 2., .25, None, 'sum')
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()
    assert ops.sigmoid_focal_loss(x[:0], torch.zeros(0, dtype=torch.long, device=device), 2., .25, None, 'sum') == 0


def naive_roi_pool(x, rois, size, scale):
    """A row of mmcv's kernel after the other."""
    out = x.new_zeros(len(rois), x.shape[1], size, size)
    for n, (b, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        if x2 <= x1 or y2 <= y1:
            continue
        for i in range(size):
            for j in range(size):
                top, bottom = (int(f) for f in (torch.tensor(i * (y2 - y1) / size + y1).floor(),
                                                torch.tensor((i + 1) * (y2 - y1) / size + y1).ceil()))
                left, right = (int(f) for f in (torch.tensor(j * (x2 - x1) / size + x1).floor(),
                                                torch.tensor((j + 1) * (x2 - x1) / size + x1).ceil()))
                cell = x[int(b), :, max(top, 0):max(bottom, 0), max(left, 0):max(right, 0)]
                if cell.numel():
                    out[n, :, i, j] = cell.amax((1, 2))
    return out


ROIS = [[0, 4., 4., 15., 19.], [1, 5.3, 3.1, 9.7, 6.2], [1, -30., -9., 90., 90.], [0, 6., 6., 6., 6.],
        [0, 9., 9., 2., 2.], [1, 80., 80., 99., 99.], [0, -60., -60., -20., -20.]]


def test_roi_pool(device):
    rois = torch.tensor(ROIS, device=device)
    assert_same(lambda x: ops.roi_pool(x, rois, 3, .5), lambda x: naive_roi_pool(x, rois, 3, .5),
                [leaf(2, 3, 12, 10, device=device)])
    x = leaf(2, 3, 12, 10, device=device)
    assert ops.roi_pool(x, rois[:0], 3, .5).shape == (0, 3, 3, 3)
    rois[0, 1] = torch.nan
    y = ops.roi_pool(x, rois, 3, .5)
    assert y[0].isnan().all() and y[1:].isfinite().all()
    y[1:].sum().backward()
    assert x.grad.isfinite().all()


def moved_roi_align(x, rois, offset, size, samples, gamma):
    """Each cell is a region of its own, moved, by torchvision."""
    n = len(rois)
    start, extent = rois[:, 1:3], rois[:, 3:] - rois[:, 1:3]
    cells = torch.stack(torch.meshgrid(*[torch.arange(size, device=x.device)] * 2, indexing='xy'), -1)
    corner = (start[:, None, None] + cells * extent[:, None, None] / size
              + gamma * extent[:, None, None] * offset.permute(0, 2, 3, 1))
    regions = torch.cat([rois[:, None, None, :1].expand(n, size, size, 1), corner,
                         corner + extent[:, None, None] / size], -1)
    out = roi_align(x, regions.flatten(0, 2), 1, 1., samples, aligned=True)
    return out.view(n, size, size, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize('samples', [0, 2])
def test_deform_roi_pool(samples, device):
    rois = torch.tensor(ROIS[:4], device=device)
    offset = torch.randn(4, 2, 3, 3, device=device)
    assert_same(lambda x: ops.deform_roi_pool(x, rois, offset, (3, 3), 1., samples, .1),
                lambda x: moved_roi_align(x, rois.double(), offset.double(), 3, samples, .1),
                [leaf(2, 3, 20, 17, device=device)])
    # the slope of the offset, inside the map
    x, inner = torch.randn(2, 3, 20, 17, dtype=torch.float64, device=device), rois[:2].double()
    assert torch.autograd.gradcheck(lambda o: ops.deform_roi_pool(x, inner, o, (3, 3), 1., samples, .1),
                                    offset[:2].double().requires_grad_())
    assert ops.deform_roi_pool(x, inner[:0], None, (3, 3), 1., samples, .1).shape == (0, 3, 3, 3)


@pytest.mark.parametrize('kernel, padding', [(3, 1), (3, 0), (1, 0), ((5, 3), (2, 1))])
def test_masked_conv2d(kernel, padding, device):
    conv = ops.MaskedConv2d(4, 5, kernel, padding=padding).to(device)
    x, mask = torch.randn(1, 4, 9, 8, device=device), torch.rand(1, 9, 8, device=device) > .5
    full = functional.conv2d(x, conv.weight, conv.bias, padding=padding)
    mask[:, full.shape[2]:] = mask[:, :, full.shape[3]:] = False  # mmcv writes beside its output there
    expected = full * mask[:, :full.shape[2], :full.shape[3]]
    assert (conv(x, mask) - expected).abs().max() <= TOLERANCE
    assert conv(x, mask & False).abs().sum() == 0


def naive_carafe(x, masks, kernel, groups, scale):
    (b, c, h, w), half = x.shape, kernel // 2
    padded, out = functional.pad(x, [half] * 4), 0
    masks = masks.view(b, groups, kernel, kernel, h * scale, w * scale)
    for i in range(kernel):
        for j in range(kernel):
            near = padded[:, :, i:i + h, j:j + w].repeat_interleave(scale, 2).repeat_interleave(scale, 3)
            out = out + near * masks[:, :, i, j].repeat_interleave(c // groups, 1)
    return out


@pytest.mark.parametrize('groups', [1, 2])
def test_carafe(groups, device):
    inputs = [leaf(2, 4, 5, 3, device=device), leaf(2, groups * 9, 10, 6, device=device)]
    assert_same(lambda x, m: ops.carafe(x, m, 3, groups, 2), lambda x, m: naive_carafe(x, m, 3, groups, 2), inputs)
    assert torch.equal(ops.carafe_naive(*inputs, 3, groups, 2), ops.carafe(*inputs, 3, groups, 2))


def test_multi_scale_deformable_attention(device):
    """Against mmcv's own form for CPUs, in float64; what a GPU calls is called here on both."""
    shapes = torch.tensor([[6, 5], [3, 2]], device=device)
    starts = torch.tensor([0, 30], device=device)
    locations = (torch.rand(2, 7, 2, 2, 3, 2, device=device) * 1.4 - .2).requires_grad_()
    inputs = [leaf(2, 36, 2, 4, device=device), locations, leaf(2, 7, 2, 2, 3, device=device)]
    assert_same(lambda v, s, a: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, s, a, 64),
                lambda v, s, a: multi_scale_deformable_attn_pytorch(v, shapes, s, a), inputs, tolerance=2e-5)


def test_sync_bn(device):
    """Its parts in one process are batch normalisation."""
    from mmcv.ops.sync_bn import SyncBatchNormFunction
    x, weight, bias = leaf(3, 4, 5, 2, device=device), leaf(4, device=device), leaf(4, device=device)
    running = [torch.zeros(4, device=device), torch.ones(4, device=device)]
    expected = [r.double() for r in running]
    assert_same(lambda x, w, b: SyncBatchNormFunction.apply(x, *running, w, b, .1, 1e-5, None, 1, 'default'),
                lambda x, w, b: functional.batch_norm(x, *expected, w, b, True, .1, 1e-5), [x, weight, bias])
    for ours, theirs in zip(running, expected):
        assert (ours - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_boxes_that_are_not_finite_crash_nothing(value, device):
    boxes, scores = (t.to(device) for t in mmcv_cases.boxes(11))
    boxes[1, 2], boxes[2] = value, value
    for kind in ('nms', 'soft_nms'):
        kept = ops.batched_nms(boxes, scores, scores.long(), dict(type=kind, iou_threshold=.5))[1]
        assert len(kept.unique()) == len(kept)
    assert ops.nms_match(torch.cat([boxes, scores[:, None]], 1), .5)
    x = torch.randn(1, 2, 9, 9, device=device)
    rois = torch.tensor([[0, 1, 1, value, 5], [0, 1, 1, 5, 5]], device=device)
    for mode in ('avg', 'max'):
        y = ops.RoIAlign(3, pool_mode=mode)(x, rois)
        assert y[0].isnan().all() and y[1].isfinite().all()


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_offsets_that_are_not_finite_sample_nothing(value, device):
    x, weight = leaf(1, 2, 6, 6, device=device), torch.ones(1, 2, 3, 3, device=device)
    offset = torch.zeros(1, 18, 6, 6, device=device)
    offset[:, :4] = value  # the first two points of the kernel
    offset.requires_grad_()
    y = ops.deform_conv2d(x, offset, weight, 1, 1)
    weight = weight.clone()
    weight[..., 0, :2] = 0
    assert (y - functional.conv2d(x, weight, padding=1)).abs().max() <= TOLERANCE
    y.sum().backward()
    assert x.grad.isfinite().all() and offset.grad.isfinite().all()


def test_regions_of_negative_size_are_an_error_on_cpus():
    with pytest.raises(RuntimeError, match='negative size'):
        ops.roi_align(leaf(1, 1, 9, 9), torch.tensor([[0, 5., 5., 2., 9.]]), 3)


HALF = {
    'roi_align max': lambda x: ops.RoIAlign(3, pool_mode='max')(x, REGIONS.to(x)),
    'roi_pool': lambda x: ops.RoIPool(3)(x, REGIONS.to(x)),
    'deform_roi_pool': lambda x: ops.deform_roi_pool(x, REGIONS.to(x), x.new_ones(2, 2, 3, 3), (3, 3)),
    'deform_conv2d': lambda x: ops.deform_conv2d(x, x.new_full((2, 18, 8, 8), .25), x.new_ones(3, 4, 3, 3), 1, 1),
    'modulated_deform_conv2d': lambda x: ops.modulated_deform_conv2d(
        x, x.new_full((2, 18, 8, 8), .25), x.new_ones(2, 9, 8, 8), x.new_ones(3, 4, 3, 3), None, 1, 1),
    'sigmoid_focal_loss': lambda x: ops.sigmoid_focal_loss(x.flatten(0, 2), torch.arange(64) % 9, 2., .25, None, 'sum'),
    'softmax_focal_loss': lambda x: ops.softmax_focal_loss(x.flatten(0, 2), torch.arange(64) % 8, 2., .25, None, 'sum'),
    'carafe': lambda x: ops.carafe(x, x.new_full((2, 9, 16, 16), .125), 3, 1, 2),
    'psa_mask': lambda x: ops.PSAMask('collect', (2, 2))(x),
    'attention': lambda x: MultiScaleDeformableAttnFunction.apply(
        x.flatten(2).transpose(1, 2)[:, :, None], torch.tensor([[8, 8]]), torch.tensor([0]),
        x.new_full((2, 3, 1, 1, 2, 2), .375), x.new_full((2, 3, 1, 1, 2), .5), 64),
}
REGIONS = torch.tensor([[0, 1., 1., 5., 6.], [1, 0., 2., 7., 7.]])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', HALF)
def test_half_precision(name, dtype):
    """Under autocast, too: as exact as the type can be, forward and backward."""
    x = leaf(2, 4, 8, 8, dtype=dtype)
    exact = x.detach().double().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        y, expected = HALF[name](x), HALF[name](exact)
    assert y.dtype == dtype
    for ours, theirs in ((y, expected), (torch.autograd.grad(y.float().sum(), x)[0],
                                         torch.autograd.grad(expected.sum(), exact)[0])):
        assert (ours - theirs).abs().max() <= 4 * torch.finfo(dtype).eps * theirs.abs().max().clamp(min=1)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_nms_in_half_precision(dtype):
    boxes, scores = (t.to(dtype) for t in mmcv_cases.boxes(12))
    for operator in (ops.nms, ops.soft_nms):
        dets, kept = operator(boxes, scores, .5)
        exact, expected = operator(boxes.float(), scores.float(), .5)
        assert dets.dtype == dtype and len(kept) == len(expected) > 1
        assert sorted(kept.tolist()) == sorted(expected.tolist())
