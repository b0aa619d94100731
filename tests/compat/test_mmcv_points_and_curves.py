"""mmcv's operators on points, curves, text and shifted frames: against loops, where compiled mmcv needs a GPU.

``test_mmcv_ops.py`` compares the operators that mmcv compiles for CPUs with what compiled mmcv returned.
"""
import math

import mmcv_cases
import pytest
import torch
from mmcv import ops
from mmcv_oracle import TOLERANCE
from torch.autograd import gradcheck

from dwnet.compat import mmcv_ops
from dwnet.compat.mmcv_ops.ext import COVERED

pytestmark = pytest.mark.skipif(not mmcv_ops.in_use(), reason='waits for an mmcv without compiled operators')

# Every function of mmcv 2.1.0 that runs on tensors of a CPU: csrc/pytorch/cpu registers it, or it asks for no device
ON_CPUS = """
active_rotated_filter_backward active_rotated_filter_forward bbox_overlaps bezier_align_backward bezier_align_forward
contour_expand deform_conv_backward_input deform_conv_backward_parameters deform_conv_forward dynamic_voxelize_forward
hard_voxelize_forward modulated_deform_conv_backward modulated_deform_conv_forward nms nms_match pixel_group
points_in_boxes_cpu_forward psamask_backward psamask_forward roi_align_backward roi_align_forward
rotated_feature_align_backward rotated_feature_align_forward softnms
"""


def test_what_compiled_mmcv_has_on_cpus_is_covered():
    assert [name for name in ON_CPUS.split() if name not in COVERED] == []


def bilinear(plane, y, x):
    """One sample of (H, W), as written in mmcv's kernels."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = plane[top, left] * (1 - x + left) + plane[top, right] * (x - left)
    below = plane[bottom, left] * (1 - x + left) + plane[bottom, right] * (x - left)
    return above * (1 - y + top) + below * (y - top)


def naive_border_align(x, boxes, steps):
    batch, channels = x.shape[0], x.shape[1] // 4
    out = x.new_zeros(batch, channels, boxes.shape[1], 4)
    for b in range(batch):
        for n, (x1, y1, x2, y2) in enumerate(boxes[b].tolist()):
            w, h = (x2 - x1) / steps, (y2 - y1) / steps
            for side, (column, row, dx, dy) in enumerate(
                    ((x1, y1, w, 0), (x1, y1, 0, h), (x2, y2, -w, 0), (x2, y2, 0, -h))):
                for c in range(channels):
                    samples = [bilinear(x[b, side * channels + c], row + i * dy, column + i * dx)
                               for i in range(steps + 1)]
                    out[b, c, n, side] = torch.stack(samples).max()
    return out


@pytest.mark.parametrize('steps', [1, 4])
def test_border_align(steps, device):
    x = torch.randn(2, 12, 6, 5, device=device, requires_grad=True)
    boxes = torch.tensor([[0.3, 1.2, 3.6, 4.9], [2, 2, 2, 2], [-9, -9, -3, -3], [-.5, -.7, 5.3, 6.2], [4., 3, 1, 2]])
    boxes = torch.stack([boxes, boxes.flip(0) + .1]).to(device)
    exact = x.detach().double().requires_grad_()
    ours, expected = ops.border_align(x, boxes, steps), naive_border_align(exact, boxes.double(), steps)
    assert (ours - expected).abs().max() <= TOLERANCE
    gradient = torch.randn_like(ours)
    ours = torch.autograd.grad(ours, x, gradient)[0]
    expected = torch.autograd.grad(expected, exact, gradient.double())[0]
    assert expected.abs().max() > 0 and (ours - expected).abs().max() <= TOLERANCE
    assert ops.BorderAlign(steps)(x, boxes[:, :0]).shape == (2, 3, 0, 4)


def test_rotated_features_are_samples_at_the_corners(device):
    """A box of 4 by 2 at y 3, x 4, turned by 90 degrees, has its corners one pixel beside and two above and below."""
    x = torch.randn(1, 2, 7, 9, device=device)
    boxes = x.new_tensor([6, 8, 8, 4, math.pi / 2]).expand(1, 7, 9, 5)
    centre, corners = x[..., 3, 4], sum(x[..., row, column] for row in (1, 5) for column in (3, 5))
    for points, more in ((1, centre), (5, centre + corners)):
        refined = ops.rotated_feature_align(x, boxes, .5, points)
        assert (refined - x - more[..., None, None]).abs().max() <= TOLERANCE


def test_a_straight_bezier_is_a_region(device):
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64, device=device)
    steps = torch.linspace(0, 1, 4, dtype=torch.float64)
    upper = torch.stack([2 + 6 * steps, torch.full_like(steps, 3)], 1)
    curve = torch.cat([torch.zeros(1).double(), upper.flatten(), (upper.flip(0) + torch.tensor([0, 4.])).flatten()])
    ours = ops.BezierAlign((4, 6), 1, 2)(x, curve[None].to(device))
    # the cells of mmcv's Bézier align are centred on the corners of the region's cells
    region = x.new_tensor([[0, 2 - .5, 3 - .5, 8 - .5, 7 - .5]])
    assert (ours - ops.roi_align(x, region, (4, 6), 1, 2)).abs().max() <= 1e-12


def test_chamfer_distance(device):
    first = torch.randn(3, 5, 2, device=device, requires_grad=True)
    second = torch.randn(3, 8, 2, device=device, requires_grad=True)
    exact = [t.detach().double().requires_grad_() for t in (first, second)]
    distances = torch.cdist(*exact).square()
    near = [distances.min(2), distances.min(1)]
    dist1, dist2, idx1, idx2 = ops.chamfer_distance(first, second)
    assert torch.equal(idx1.long(), near[0].indices) and torch.equal(idx2.long(), near[1].indices)
    weights = torch.rand_like(dist1), torch.rand_like(dist2)
    ours = torch.autograd.grad([dist1, dist2], [first, second], weights)
    theirs = torch.autograd.grad([n.values for n in near], exact, [w.double() for w in weights])
    for a, b in zip((dist1, dist2, *ours), (near[0].values, near[1].values, *theirs)):
        assert a.shape == b.shape and (a - b).abs().max() <= TOLERANCE
    assert ops.chamfer_distance(first[:0], second[:0])[0].shape == (0, 5)


def test_tin_shift(device):
    x = torch.randn(2, 4, 6, 3, device=device, requires_grad=True)
    shift = torch.tensor([[0, 1, -2], [9, -1, 3]], device=device, dtype=torch.int)
    moved, gradient = ops.tin_shift(x, shift), torch.randn(2, 4, 6, 3, device=device)
    back = torch.autograd.grad(moved, x, gradient)[0]
    for ours, frames in ((moved, x), (back, gradient)):  # mmcv moves the gradient forth, too
        expected = torch.zeros_like(frames)
        for b in range(2):
            for c in range(6):
                for t in range(4):
                    if 0 <= t + shift[b, c // 2] < 4:
                        expected[b, t + shift[b, c // 2], c] = frames[b, t, c]
        assert torch.equal(ours, expected)


def test_points_in_boxes_of_a_batch(device):
    """The functions that mmcv calls on GPUs only, against the one for CPUs."""
    points, boxes = torch.randn(2, 300, 3, device=device), torch.randn(2, 9, 7, device=device)
    boxes[..., 3:6] = boxes[..., 3:6].abs() * 2
    inside = ops.points_in_boxes_cpu(points.cpu(), boxes.cpu()).to(device)
    assert 0 < inside.sum() < inside.numel()
    of_all, first = torch.zeros_like(inside), torch.full((2, 300), -1, dtype=torch.int, device=device)
    COVERED['points_in_boxes_all_forward'](boxes, points, of_all)
    COVERED['points_in_boxes_part_forward'](boxes, points, first)
    assert torch.equal(of_all, inside)
    expected = [[next((k for k in range(9) if held[k]), -1) for held in rows] for rows in inside.tolist()]
    assert first.tolist() == expected
    COVERED['points_in_boxes_part_forward'](boxes[:, :0], points, first.fill_(-1))
    assert (first == -1).all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', ['rotated_feature_align', 'bezier_align', 'border_align', 'active_rotated_filter'])
def test_half_precision(name, dtype):
    """As exact as the type can be, forward and backward."""
    functions = {
        'rotated_feature_align': lambda x: ops.rotated_feature_align(x, BOXES.to(x).expand(2, 8, 8, 5), .5, 5),
        'bezier_align': lambda x: ops.BezierAlign((3, 4), 1, 2)(x, CURVE.to(x)),
        'border_align': lambda x: ops.border_align(x, BOXES[:4].to(x).expand(2, 3, 4), 4),
        'active_rotated_filter': lambda x: ops.active_rotated_filter(x.unflatten(1, (2, 2)), PLACES),
    }
    x = torch.randn(2, 4, 8, 8).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, expected = functions[name](x), functions[name](exact)
    assert y.dtype == dtype
    for ours, theirs in ((y, expected), (torch.autograd.grad(y.float().sum(), x)[0],
                                         torch.autograd.grad(expected.sum(), exact)[0])):
        assert (ours - theirs).abs().max() <= 4 * torch.finfo(dtype).eps * theirs.abs().max().clamp(min=1)


BOXES = torch.tensor([4., 5., 6., 7., .5])  # exact in 16 bits, as are the others
CURVE = torch.tensor([[1, 1, 1, 2, 1.5, 4, 1.5, 6, 2, 6, 5, 4, 5, 2, 4.5, 1, 4.5]])
PLACES = torch.arange(1, 129).view(2, 8, 8, 1).flip(0).int().expand(2, 8, 8, 2)


@pytest.mark.parametrize('name', ['rotated_feature_align', 'bezier_align', 'border_align', 'active_rotated_filter'])
def test_gradients_are_slopes(name):
    functions = {
        'rotated_feature_align': lambda x: ops.rotated_feature_align(x, BOXES.to(x).expand(1, 3, 4, 5), .5, 5),
        'bezier_align': lambda x: ops.BezierAlign((2, 3), .5, 0)(x, CURVE.to(x)[:, :].index_fill(
            1, torch.tensor(0), 0)),
        'border_align': lambda x: ops.border_align(x, BOXES[:4].to(x).expand(1, 3, 4) / 2, 4),
        'active_rotated_filter': lambda x: ops.active_rotated_filter(x[None], torch.arange(
            1, 49).flip(0).view(4, 3, 4, 1).int()),
    }
    assert gradcheck(functions[name], torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_boxes_that_are_not_finite_sample_nothing(value, device):
    x = torch.randn(1, 4, 3, 4, device=device, requires_grad=True)
    boxes = torch.full((1, 3, 4, 5), value, device=device)
    for y in (ops.rotated_feature_align(x, boxes, 1., 5), ops.border_align(x, boxes[:, 0, :, :4], 2)):
        assert y.isfinite().all() and torch.autograd.grad(y.sum(), x)[0].isfinite().all()
    y = ops.BezierAlign((2, 2), 1, 2)(x, torch.tensor([[0., *[value] * 16]], device=device))
    assert y.isnan().all()
    points = torch.full((2, 4), value, device=device)
    assert ops.Voxelization([1, 1, 1], [0, 0, 0, 4, 4, 4], -1, 5)(points).tolist() == [[-1] * 3] * 2


def test_text_of_maps_on_any_device(device):
    """What mmocr's PSENet and PAN ask for."""
    mask = torch.zeros(2, 5, 9, dtype=torch.uint8, device=device)
    mask[0, 2, 1:8] = 1
    labels = torch.zeros(5, 9, dtype=torch.int32, device=device)
    labels[2, 1], labels[2, 7] = 1, 2
    assert ops.contour_expand(mask, labels, 0, 3)[2] == [0, 1, 1, 1, 1, 2, 2, 2, 0]
    embedding = torch.zeros(5, 9, 1, device=device)
    embedding[2, 4:] = 1
    groups = ops.pixel_group(mask[0] * .5, mask[0] > 0, embedding, labels, labels.to(torch.uint8), 3, .5)
    assert groups == [[0, 0], [.5, 3, 1, 2, 2, 2, 3, 2], [.5, 4, 4, 2, 5, 2, 6, 2, 7, 2]]


def test_voxels_are_numbered_by_their_first_points(device):
    points = torch.tensor([[3.5, .5, .5], [9, 9, 9], [.5, .5, .5], [3.6, .5, .5], [.1, 1.5, .5], [3.7, .5, .5]])
    voxels, places, numbers = ops.Voxelization([1, 1, 1], [0, 0, 0, 4, 4, 4], 2, 2)(points.to(device))
    assert places.tolist() == [[0, 0, 3], [0, 0, 0]] and numbers.tolist() == [2, 1]
    assert torch.equal(voxels.cpu(), torch.stack([points[[0, 3]], torch.stack([points[2], torch.zeros(3)])]))


@pytest.mark.parametrize('seed', range(4))
def test_the_compared_cases_are_not_empty(seed):
    """Cases beyond the degenerate ones have something to compare."""
    for name in ('contour_expand', 'pixel_group', 'rotated_feature_align', 'active_rotated_filter', 'bezier_align'):
        assert any(t.numel() for t in mmcv_cases.CASES[name](seed + 2))


class Regions(torch.nn.Module):
    """RoI align with a fixed number of samples."""

    def __init__(self, mode):
        super().__init__()
        self.align = ops.RoIAlign((2, 3), .5, sampling_ratio=2, pool_mode=mode)

    def forward(self, x, rois):
        return self.align(x, rois)


def regions():
    return torch.randn(2, 3, 6, 7), torch.tensor([[0, 1., 2., 9., 10.], [1, 0, 0, 5, 5], [0, 4, 4, 20, 20]])


@pytest.mark.parametrize('mode', ['avg', pytest.param('max', marks=pytest.mark.long)])
def test_regions_are_exported(mode):
    """For any number of regions."""
    x, rois = regions()
    program = torch.export.export(Regions(mode), (x, rois), dynamic_shapes=(None, {0: torch.export.Dim('n', max=99)}))
    more = torch.cat([rois, rois + 1 - rois[:, :1]])
    assert (program.module()(x, more) - Regions(mode)(x, more)).abs().max() <= TOLERANCE


@pytest.mark.long
def test_regions_as_onnx(tmp_path):
    """By the exporter that PyTorch uses if not told otherwise."""
    onnxruntime = pytest.importorskip('onnxruntime')
    x, rois = regions()
    torch.onnx.export(Regions('avg'), (x, rois), tmp_path / 'rois.onnx', input_names=['x', 'rois'], dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / 'rois.onnx', providers=['CPUExecutionProvider'])
    y = torch.tensor(session.run(None, dict(x=x.numpy(), rois=rois.numpy()))[0])
    assert (y - Regions('avg')(x, rois)).abs().max() <= TOLERANCE
