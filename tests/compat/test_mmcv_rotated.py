"""The stand-in for mmcv's operators on rotated boxes and polygons: against compiled mmcv, against plain geometry."""
import math

import mmcv_rotated_cases
import pytest
import torch
from mmcv import ops
from mmcv_oracle import FILES, SEEDS, TOLERANCE, deviations, results
from safetensors.torch import load_file
from torch import Tensor

from dwnet.compat import mmcv_ops

pytestmark = pytest.mark.skipif(not mmcv_ops.in_use(), reason='waits for an mmcv without compiled operators')


@pytest.fixture(scope='module')
def found():
    """The largest deviation of each operator from what compiled mmcv returned, by ``make oracle``."""
    return deviations(load_file(FILES['mmcv_rotated_cases']), results(SEEDS, 'mmcv_rotated_cases'))


@pytest.mark.parametrize('name', mmcv_rotated_cases.CASES)
def test_as_compiled(name, found):
    assert found[name] <= TOLERANCE


# Plain geometry in Python's floats: points are (x, y), polygons are lists of them, counter-clockwise where that matters

def area(polygon):
    return sum(x * v - u * y for (x, y), (u, v) in zip(polygon, polygon[1:] + polygon[:1])) / 2


def clip(polygon, window):
    """The part of a polygon within a convex one, side after side (Sutherland and Hodgman, 1974)."""
    window = window if area(window) > 0 else window[::-1]
    for (x, y), (u, v) in zip(window, window[1:] + window[:1]):
        sides = [(u - x) * (q - y) - (v - y) * (p - x) for p, q in polygon]
        clipped = []
        for i, (point, side) in enumerate(zip(polygon, sides)):
            before, other = polygon[i - 1], sides[i - 1]
            if (side >= 0) != (other >= 0):
                part = other / (other - side)
                clipped.append(tuple(a + part * (b - a) for a, b in zip(before, point)))
            if side >= 0:
                clipped.append(point)
        polygon = clipped
    return polygon


def convex_hull(points):
    """Andrew's monotone chains."""
    chains = []
    for ordered in (sorted(set(points)), sorted(set(points), reverse=True)):
        chain = []
        for p in ordered:
            while len(chain) > 1 and area([chain[-2], chain[-1], p]) <= 0:
                chain.pop()
            chain.append(p)
        chains += chain[:-1]
    return chains


def overlap(first, second):
    shared = abs(area(clip(first, second)))
    return shared / (abs(area(first)) + abs(area(second)) - shared)


def generalised_overlap(first, second):
    shared, around = abs(area(clip(first, second))), area(convex_hull(first + second))
    union = abs(area(first)) + abs(area(second)) - shared
    return shared / union - (around - union) / around


def as_polygons(flat: Tensor) -> list:
    return [[tuple(point) for point in polygon] for polygon in flat.double().unflatten(1, (-1, 2)).tolist()]


def corners_of(boxes: Tensor) -> list:
    polygons = []
    for x, y, width, height, angle in boxes.tolist():
        c, s = math.cos(angle) / 2, math.sin(angle) / 2
        polygons.append([(x + i * width * c - j * height * s, y + i * width * s + j * height * c)
                         for i, j in ((1, 1), (-1, 1), (-1, -1), (1, -1))])
    return polygons


def some_boxes(number: int, device: str = 'cpu') -> Tensor:
    boxes = torch.rand(number, 5) * torch.tensor([40, 40, 20, 20, 8]) + torch.tensor([0, 0, 2, 2, -4])
    return boxes.to(device)


def test_overlaps_of_rotated_boxes(device, monkeypatch):
    monkeypatch.setattr('mmcv._ext.rotated.PAIRS', 7)
    first, second = some_boxes(15, device), some_boxes(12, device)
    expected = torch.tensor([[overlap(p, q) for q in corners_of(second)] for p in corners_of(first)], device=device)
    assert (expected > 0).sum() > 20
    assert (ops.box_iou_rotated(first, second) - expected).abs().max() <= 1e-6
    assert ops.box_iou_rotated(first, second[:0]).shape == (15, 0)


TURNS = {
    'half a turn': lambda b: b + torch.tensor([0, 0, 0, 0, math.pi]),
    'a turn': lambda b: b - torch.tensor([0, 0, 0, 0, 2 * math.pi]),
    'a quarter': lambda b: b[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, math.pi / 2]),
    'by a little': lambda b: b + 1e-6 * torch.randn(b.shape),
}


@pytest.mark.parametrize('turn', TURNS)
def test_a_box_turned_onto_itself(turn, device):
    """Compiled mmcv is off by up to 1 for some of these: rounding loses corners."""
    boxes = some_boxes(500)
    same = TURNS[turn](boxes).to(device)
    assert (ops.box_iou_rotated(boxes.to(device), same, aligned=True) - 1).abs().max() <= 5e-5


def test_boxes_with_a_common_side(device):
    """Half of a box, along its own side; and a neighbour, which touches."""
    boxes = some_boxes(500)
    step = boxes[:, 2:3] * torch.stack([boxes[:, 4].cos(), boxes[:, 4].sin()], 1)
    half, beside = boxes.clone(), boxes.clone()
    half[:, :2] += step / 4
    half[:, 2] /= 2
    beside[:, :2] += step
    boxes, half, beside = boxes.to(device), half.to(device), beside.to(device)
    assert (ops.box_iou_rotated(boxes, half, aligned=True) - .5).abs().max() <= 1e-5
    assert (ops.box_iou_rotated(half, boxes, 'iof', aligned=True) - 1).abs().max() <= 1e-5
    assert ops.box_iou_rotated(boxes, beside, aligned=True).max() <= 1e-5


def test_overlaps_of_quadrilaterals(device):
    """Convex ones that are no rectangles, in both directions; compiled mmcv is exact for rectangles only."""
    angle = torch.arange(4) * math.pi / 2 + torch.rand(12, 4) * .7
    quads = torch.stack([angle.cos(), angle.sin()], 2) * 10 + torch.rand(12, 1, 2) * 12
    quads[::3] = quads[::3].flip(1)
    first, second = quads[:6].flatten(1).to(device), quads[6:].flatten(1).to(device)
    expected = torch.tensor([[overlap(p, q) for q in as_polygons(second)] for p in as_polygons(first)], device=device)
    assert (ops.box_iou_quadri(first, second) - expected).abs().max() <= 1e-6
    assert (ops.box_iou_quadri(first, second, aligned=True) - expected.diag()).abs().max() <= 1e-6
    assert (ops.box_iou_quadri(first, first, aligned=True) - 1).abs().max() <= 1e-6


@pytest.mark.parametrize('threshold', [.05, .2, .4])
def test_nms_over_blocks(threshold, device, monkeypatch):
    monkeypatch.setattr('mmcv._ext.rotated.BLOCK', 16)
    boxes, scores = some_boxes(150, device), torch.rand(150, device=device)
    overlaps, kept = ops.box_iou_rotated(boxes, boxes), []
    for i in scores.argsort(descending=True).tolist():
        if all(overlaps[j, i] < threshold for j in kept):
            kept.append(i)
    assert 5 < len(kept) < 145
    dets, found = ops.nms_rotated(boxes, scores, threshold)
    assert found.tolist() == kept
    assert dets.equal(torch.cat([boxes, scores[:, None]], 1)[kept])


def pointsets(device: str) -> tuple[Tensor, Tensor]:
    """Sets of nine points, and quadrilaterals near them; some points equal, in a line, or on the quadrilateral."""
    points, quads = torch.randn(8, 9, 2) * 10, torch.tensor([[-8., -7], [9, -6], [7, 8], [-6, 9]])
    quads = quads + torch.randn(8, 1, 2)
    points[0, 3:6] = points[0, 2]
    points[1] = torch.tensor([[i // 3 * 5., i % 3 * 6] for i in range(9)])
    points[2] = points[2] * 30
    points[3] = points[3] / 30 + quads[3].mean(0)
    quads[4] = quads[4].flip(0)
    points[5, :4] = quads[5]
    return points.flatten(1).to(device), quads.flatten(1).to(device)


def test_overlaps_of_hulls(device, monkeypatch):
    monkeypatch.setattr('mmcv._ext.polygons.PAIRS', 7)
    points, quads = pointsets(device)
    hulls = [convex_hull(p) for p in as_polygons(points)]
    expected = torch.tensor([[overlap(p, q) for q in as_polygons(quads)] for p in hulls], device=device)
    assert (ops.convex_iou(points, quads) - expected).abs().max() <= 1e-6
    points[0] = 1  # all of them one point
    assert ops.convex_iou(points, quads)[0].abs().max() == 0


def test_generalised_overlaps_of_hulls(device):
    points, quads = pointsets(device)
    found, gradient = ops.convex_giou(points, quads)
    assert found.shape == (8, ) and gradient.shape == (8, 18)

    def expected(flat: Tensor, quad: Tensor) -> float:
        return generalised_overlap(convex_hull(as_polygons(flat[None])[0]), as_polygons(quad[None])[0])

    step = 1e-5 * torch.eye(18, dtype=torch.float64)
    for n, (point, quad) in enumerate(zip(points.cpu().double(), quads.cpu())):
        assert abs(found[n] - expected(point, quad)) <= 1e-6
        if n not in (0, 1, 5):  # where a difference is a slope
            slope = torch.tensor([expected(point + s, quad) - expected(point - s, quad) for s in step]) / 2e-5
            assert (gradient[n].cpu() - slope).abs().max() <= 1e-5 * slope.abs().max()
    assert gradient.isfinite().all()


def test_smallest_rectangles(device):
    """No other turn, in steps of a tenth of a degree, has a smaller one; all points are within."""
    points, _ = pointsets(device)
    found = ops.min_area_polygons(points).cpu().double().view(8, 4, 2)
    points = points.cpu().double().view(8, 9, 2)
    angle = torch.arange(900) * math.pi / 1800
    axes = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(900, 2, 2).double()
    turned = points[:, None] @ axes
    smallest = (turned.amax(2) - turned.amin(2)).prod(2).amin(1)
    side, other = found[:, 1] - found[:, 0], found[:, 3] - found[:, 0]
    assert ((side * other).sum(1).abs() <= 1e-6 * side.norm(dim=1) * other.norm(dim=1)).all()  # a right angle
    for n in range(8):
        size = abs(area([tuple(p) for p in found[n].tolist()]))
        assert .97 * smallest[n] <= size <= smallest[n] * (1 + 1e-6)
        within = (points[n] - found[n, 0]) @ torch.stack([side[n], other[n]], 1)
        length = torch.stack([side[n], other[n]]).square().sum(1)
        assert ((within >= -1e-5 * length) & (within <= (1 + 1e-5) * length)).all()


def test_points_in_polygons(device):
    polygon = torch.tensor([[0., 0, 4, 0, 5, 3, 1, 4], [0, 0, 0, 4, 4, 4, 4, 0]], device=device)
    points = torch.rand(200, 2, device=device) * 8 - 1.5
    expected = [[all(area([p, q, x]) > 0 for p, q in zip(window, window[1:] + window[:1])) for window in
                 ((w if area(w) > 0 else w[::-1]) for w in as_polygons(polygon))]
                for x in (tuple(x) for x in points.double().tolist())]
    assert ops.points_in_polygons(points, polygon).tolist() == torch.tensor(expected).float().tolist()
    on_corners = ops.points_in_polygons(polygon.view(-1, 2), polygon)
    assert on_corners[:4, 0].tolist() == on_corners[4:, 1].tolist() == [0, 0, 0, 0]


def naive_align(x: Tensor, roi: list, size: int, samples: int, clockwise: bool) -> Tensor:
    """Cells of one region, as in mmcv's kernel with ``aligned=False``, (C, size, size)."""
    batch, cx, cy, width, height, angle = roi
    width, height, angle = max(width, 1), max(height, 1), -angle if clockwise else angle
    out = x.new_zeros(x.shape[1], size, size)
    steps = [(i + (k + .5) / samples) / size - .5 for i in range(size) for k in range(samples)]
    for i, down in enumerate(steps):
        for j, along in enumerate(steps):
            dy, dx = down * height, along * width
            y, x_ = dy * math.cos(angle) - dx * math.sin(angle) + cy, dy * math.sin(angle) + dx * math.cos(angle) + cx
            if -1 <= y <= x.shape[2] and -1 <= x_ <= x.shape[3]:
                y, x_ = min(max(y, 0), x.shape[2] - 1), min(max(x_, 0), x.shape[3] - 1)
                top, left = min(int(y), x.shape[2] - 2), min(int(x_), x.shape[3] - 2)
                pixels, a, b = x[int(batch), :, top:top + 2, left:left + 2], y - top, x_ - left
                weight = x.new_tensor([[(1 - a) * (1 - b), (1 - a) * b], [a * (1 - b), a * b]])
                out[:, i // samples, j // samples] += (pixels * weight).sum((1, 2)) / samples**2
    return out


ROIS = [[0, 6, 5, 7, 4, .7], [1, 3, 8, .5, 6, -2.9], [1, 4, 4, 30, 20, 7.5], [0, 9, 1, 5, 5, 0]]


@pytest.mark.parametrize('clockwise', [False, True])
def test_turned_channels(clockwise, device):
    """RiRoIAlignRotated, against loops; values and gradients."""
    number, x = 4, torch.randn(2, 8, 11, 12, dtype=torch.float64, device=device, requires_grad=True)
    align = ops.RiRoIAlignRotated(2, 1., 2, number, clockwise)
    rows = []
    for roi in ROIS:
        cells = naive_align(x, roi, 2, 2, clockwise).view(2, number, 2, 2)
        turns = roi[5] * number / (2 * math.pi)
        whole, rest = math.floor(turns), turns - math.floor(turns)
        rows.append(torch.stack([(1 - rest) * cells[:, (o - whole) % number] + rest * cells[:, (o - whole + 1) % number]
                                 for o in range(number)], 1).flatten(0, 1))
    expected, found = torch.stack(rows), align(x, torch.tensor(ROIS, dtype=torch.float64, device=device))
    gradient = torch.randn_like(expected)
    slopes = [torch.autograd.grad(y, x, gradient)[0] for y in (found, expected)]
    assert (found - expected).abs().max() <= 1e-10 and (slopes[0] - slopes[1]).abs().max() <= 1e-10
    assert align(x, torch.zeros(0, 6, dtype=torch.float64, device=device)).shape == (0, 8, 2, 2)


def test_differentiable_overlaps(device):
    """Values against geometry, slopes against differences."""
    first, second = some_boxes(40, device).double() / 4, some_boxes(40, device).double() / 4
    expected = torch.tensor([overlap(p, q) for p, q in zip(corners_of(first), corners_of(second))], device=device)
    assert (expected > 0).sum() > 10
    assert (ops.diff_iou_rotated_2d(first[None], second[None])[0] - expected).abs().max() <= 1e-6
    pairs = [t[expected > 0][None, :6].requires_grad_() for t in (first, second)]
    assert torch.autograd.gradcheck(ops.diff_iou_rotated_2d, pairs)
    solids = [torch.cat([t[..., :2], t[..., :1] * 0, t[..., 2:4], t[..., 2:3], t[..., 4:]], 2) for t in pairs]
    found = ops.diff_iou_rotated_3d(*solids)
    shared, (depth, other) = expected[expected > 0][:6], (t[0, :, 5] for t in solids)
    areas = [t[0, :, 2] * t[0, :, 3] for t in pairs]
    shared = shared * sum(areas) / (1 + shared) * torch.minimum(depth, other)
    assert (found[0] - shared / (areas[0] * depth + areas[1] * other - shared)).abs().max() <= 1e-6


def test_differentiable_overlaps_of_equal_boxes(device):
    """More than eight vertices are valid; mmcv writes them out of bounds."""
    boxes = some_boxes(300).double()
    for other in (boxes, TURNS['half a turn'](boxes), boxes + 1e-5 * torch.randn_like(boxes)):
        pair = boxes[None].to(device).requires_grad_(), other[None].to(device)
        found = ops.diff_iou_rotated_2d(*pair)
        assert (found - 1).abs().max() <= 1e-4
        assert torch.autograd.grad(found.sum(), pair[0])[0].isfinite().all()
    apart = boxes[None] + torch.tensor([1000, 0, 0, 0, 0])
    assert ops.diff_iou_rotated_2d(boxes[None].to(device), apart.to(device)).abs().max() == 0


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_boxes_that_are_not_finite_overlap_nothing(value, device):
    boxes, scores = some_boxes(40, device), torch.rand(40, device=device)
    boxes[3, 0] = boxes[7, 3] = boxes[9, 4] = value
    overlaps = ops.box_iou_rotated(boxes, boxes)
    finite = boxes.isfinite().all(1)
    assert overlaps[~finite].nan_to_num(0).eq(0).all() and overlaps[finite][:, finite].isfinite().all()
    kept = ops.nms_rotated(boxes, scores, .1)[1]
    assert set((~finite).nonzero()[:, 0].tolist()) <= set(kept.tolist())
    rois = torch.tensor([[0, 4, 4, value, 5, 0], [0, 4, 4, 5, 5, .3]], device=device)
    x = torch.randn(1, 4, 9, 9, device=device, requires_grad=True)
    for align in (ops.RoIAlignRotated(3, 1.), ops.RiRoIAlignRotated(3, 1., 0, 4)):
        y = align(x, rois)
        assert y[0].isnan().all() and y[1].isfinite().all()
        assert torch.autograd.grad(y[1].sum(), x)[0].isfinite().all()


def test_regions_of_negative_size_are_an_error_on_cpus():
    with pytest.raises(RuntimeError, match='non-negative size'):
        ops.RoIAlignRotated(3, 1.)(torch.zeros(1, 1, 9, 9), torch.tensor([[0, 5., 5., -2., 9., 0]]))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(dtype, device):
    """As exact as the type can be."""
    boxes, others = (some_boxes(20, device).to(dtype) for _ in range(2))
    x, rois = torch.randn(2, 4, 11, 12, device=device).to(dtype), torch.tensor(ROIS, device=device).to(dtype)
    points, quads = (t.to(dtype) for t in pointsets(device))
    for function, inputs in ((ops.box_iou_rotated, (boxes, others)), (ops.box_iou_quadri, (quads, quads.flip(0))),
                             (ops.RoIAlignRotated(3, 1.), (x, rois)), (ops.RiRoIAlignRotated(3, 1., 0, 4), (x, rois)),
                             (ops.convex_iou, (points, quads)), (ops.min_area_polygons, (points, ))):
        found, exact = function(*inputs), function(*[t.float() for t in inputs])
        assert found.dtype == dtype
        assert ((found - exact).abs() <= torch.finfo(dtype).eps * exact.abs().clamp(min=1)).all()
    assert ops.nms_rotated(boxes, boxes[:, 0], .3)[1].equal(ops.nms_rotated(boxes.float(), boxes[:, 0].float(), .3)[1])
    exact = x.detach().float().requires_grad_()
    with torch.autocast(device, dtype):
        y, in_autocast = (ops.RoIAlignRotated(3, 1.)(t, rois.to(t)) for t in (x.requires_grad_(), exact))
    assert in_autocast.equal(ops.RoIAlignRotated(3, 1.)(exact, rois.float()))
    slope, expected = torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(
        ops.RoIAlignRotated(3, 1.)(exact, rois.float()).sum(), exact)[0]
    assert slope.dtype == dtype and (slope - expected).abs().max() <= torch.finfo(dtype).eps * expected.max()
