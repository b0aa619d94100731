"""Cases of mmcv's operators, by ``mmcv.ops`` as a model calls it: the same for compiled mmcv and for the stand-in.

Each function makes a case of a seed: the small seeds hold what is degenerate, the others are random. It returns the
results, the gradients among them. ``tests/mmcv_oracle.py`` keeps what compiled mmcv returns.
"""
from collections.abc import Callable

import torch
from mmcv import ops
from torch import Tensor

Case = Callable[[int], list[Tensor]]


def _random(seed: int) -> tuple[torch.Generator, Callable]:
    generator = torch.Generator().manual_seed(seed)

    def choose(*options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    return generator, choose


def boxes(seed: int) -> tuple[Tensor, Tensor]:
    """(N, 4) and scores (N,): none, one, equal, zero-area, beyond the image, inverted, with ties, random."""
    generator, choose = _random(seed)
    number = {0: 0, 1: 1, 2: 2}.get(seed, choose(3, 20, 60, 200))
    corners = torch.rand(number, 4, generator=generator) * choose(10, 100, 1000)
    corners[:, 2:] = corners[:, :2] + torch.rand(number, 2, generator=generator) * choose(5, 50, 300)
    scores = torch.rand(number, generator=generator)
    if seed == 2:
        corners[1] = corners[0]
    if seed in (3, 4) or seed % 5 == 4:  # whole numbers: overlaps that equal the threshold, scores that tie
        corners, scores = corners.round(), (scores * 8).round() / 8
    if seed == 5:
        corners[:, 2:] = corners[:, :2]
    if seed == 6:
        corners[::2, 2] = corners[::2, 0]
        corners -= 50
    if seed == 7:
        corners[::3] = corners[::3, [2, 3, 0, 1]]
    if seed == 8:
        scores[:] = .5
    return corners, scores


def nms(seed: int) -> list[Tensor]:
    _, choose = _random(seed)
    return list(ops.nms(*boxes(seed), choose(.1, .3, .5, .7, 1.), offset=seed % 2, score_threshold=choose(0, 0, .4),
                        max_num=choose(-1, -1, 5)))


def soft_nms(seed: int) -> list[Tensor]:
    _, choose = _random(seed)
    arguments = dict(iou_threshold=choose(.1, .3, .5), sigma=choose(.3, .5), min_score=choose(1e-3, .05, .4),
                     offset=seed % 2)
    return [t for method in ('naive', 'linear', 'gaussian')
            for t in ops.soft_nms(*boxes(seed), method=method, **arguments)]


def nms_match(seed: int) -> list[Tensor]:
    _, choose = _random(seed)
    corners, scores = boxes(seed)
    groups = ops.nms_match(torch.cat([corners, scores[:, None]], 1), choose(.1, .3, .5, .7))
    return [torch.tensor([len(group) for group in groups]), torch.cat([torch.zeros(0, dtype=torch.long), *groups])]


def batched_nms(seed: int) -> list[Tensor]:
    """By class, over all classes, in groups when there are many, without NMS; hard and soft."""
    generator, choose = _random(seed)
    corners, scores = boxes(max(seed, 1))  # of none, mmcv cannot take the maximum
    classes = torch.randint(4, (len(corners), ), generator=generator)
    kind = choose(dict(type='nms'), dict(type='soft_nms', min_score=.05), dict(type='nms', split_thr=10, max_num=9),
                  dict(type='soft_nms', split_thr=10, method='gaussian'))
    config = None if seed == 9 else dict(kind, iou_threshold=choose(.3, .5))
    return list(ops.batched_nms(corners, scores, classes, config, class_agnostic=choose(True, False, False)))


def bbox_overlaps(seed: int) -> list[Tensor]:
    first, second = boxes(seed)[0][:30], boxes(seed + 1000)[0][:20]
    if seed % 3 == 0:
        first = second = first[:20]
    return [ops.bbox_overlaps(first, second, mode, aligned, offset) for mode in ('iou', 'iof') for offset in (0, 1)
            for aligned in ([False, True] if seed % 3 == 0 else [False])]


def contour_expand(seed: int) -> list[Tensor]:
    generator, choose = _random(seed)
    height, width, number = choose(1, 6, 20), choose(2, 9, 25), choose(1, 2, 3, 5)
    masks = (torch.rand(number, height, width, generator=generator) > choose(.1, .3, .5)).to(torch.uint8)
    labels = _kernels(seed, height, width)
    if seed % 4 == 1:  # as numpy arrays
        masks, labels = masks.numpy(), labels.numpy()
    return [torch.tensor(ops.contour_expand(masks, labels, choose(0, 1, 2, 4), int(labels.max()) + 1))]


def pixel_group(seed: int) -> list[Tensor]:
    """Random embeddings; of whole numbers, whose distances equal the threshold; of one value."""
    generator, choose = _random(seed)
    height, width, channels = choose(1, 6, 20), choose(2, 9, 25), choose(1, 4)
    labels = _kernels(seed, height, width)
    score, mask = torch.rand(height, width, generator=generator), torch.rand(height, width, generator=generator) > .2
    rim = ((labels > 0) & (torch.rand(height, width, generator=generator) > .3)).to(torch.uint8) * 255
    embedding = torch.randn(height, width, channels, generator=generator) * choose(.1, .5, 2)
    if seed % 4 == 0:
        embedding = embedding.round()
    if seed % 4 == 1:
        embedding[:] = 1
    groups = ops.pixel_group(score, mask, embedding, labels, rim, int(labels.max()) + 1, choose(.5, .8, 1., 2.))
    return [torch.tensor([len(group) for group in groups]), torch.tensor([x for group in groups for x in group])]


def _kernels(seed: int, height: int, width: int) -> Tensor:
    """(H, W) int32: none, one pixel, random."""
    generator, choose = _random(seed + 1000)
    labels = torch.randint(1, choose(2, 5, 9), (height, width), generator=generator, dtype=torch.int32)
    labels *= torch.rand(height, width, generator=generator) < choose(.1, .3)
    if seed in (0, 1):
        labels[:] = 0
    labels[-1, -1] = seed != 0
    return labels


def points_in_boxes_cpu(seed: int) -> list[Tensor]:
    generator, choose = _random(seed)
    points = torch.randn(2, choose(0, 1, 50, 200), 3, generator=generator) * choose(1, 3)
    boxes = torch.randn(2, choose(0, 1, 7, 20), 7, generator=generator) * 2
    if seed % 4 == 0:  # points on sides, tops and bottoms
        points, boxes = points.round(), boxes.round()
        boxes[..., 6] = 0
    boxes[..., 3:6].abs_()
    if seed % 4 == 1:
        boxes[..., 3:6] = 0
    return [ops.points_in_boxes_cpu(points, boxes)]


def voxelization(seed: int) -> list[Tensor]:
    generator, choose = _random(seed)
    points = torch.randn(choose(0, 1, 30, 300), choose(3, 4), generator=generator) * choose(1, 2)
    if seed % 4 == 0:  # points on the faces of voxels and of the range
        points = (points * 2).round() / 2
    size, limits = choose([.5, .5, .5], [.3, .7, 1.]), choose([-2, -2, -1, 2, 2, 1], [-1, -3, 0, 1.2, .5, 1])
    most = choose(-1, 1, 3, 20)
    voxels = ops.Voxelization(size, limits, most, choose(1, 5, 1000))(points)
    return [voxels] if most == -1 else list(voxels)


def rois(seed: int, size: tuple[int, int, int]) -> Tensor:
    """(N, 5) on (batch, height, width): none, one, of zero area, beyond the map, larger than it, random."""
    generator, choose = _random(seed)
    batch, height, width = size
    number = {0: 0, 1: 1}.get(seed, choose(2, 5, 9))
    corners = torch.rand(number, 4, generator=generator)
    corners[:, 2:] = corners[:, :2] + corners[:, 2:] * (1 - corners[:, :2])
    corners *= torch.tensor([width, height] * 2)
    if seed == 2:
        corners[:, 2:] = corners[:, :2]
    if seed == 3:
        corners[:, 2] = corners[:, 0]
    if seed == 4:
        corners += torch.tensor([width, 0] * 2)
    if seed == 5:
        corners -= 3 * torch.tensor([width, height] * 2)
    if seed == 6:
        corners = corners * 3 - torch.tensor([width, height] * 2)
    if seed == 7:
        corners = corners.round()
    return torch.cat([torch.randint(batch, (number, 1), generator=generator).float(), corners], 1)


def _with_gradients(function: Callable[..., Tensor], inputs: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    inputs = [x.clone().requires_grad_() for x in inputs]
    output = function(*inputs)
    gradient = torch.randn(output.shape, generator=generator).to(output)
    return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]


def roi_align(seed: int) -> list[Tensor]:
    generator, choose = _random(seed)
    height, width, scale = choose(5, 8, 11), choose(4, 9), choose(1., .5, .25)
    align = ops.RoIAlign(choose(1, 3, (2, 3)), scale, sampling_ratio=choose(0, 0, 1, 2), aligned=choose(True, False),
                         pool_mode=('avg', 'max')[seed // 8 % 2] if seed < 16 else choose('avg', 'max'))
    regions = rois(seed % 8 if seed < 16 else seed, (2, int(height / scale), int(width / scale)))
    x = torch.randn(2, 3, height, width, generator=generator)
    if seed in (13, 14, 15):
        x[:] = 1  # every sample is a maximum
    return _with_gradients(lambda x: align(x, regions), [x], generator)


def rotated_feature_align(seed: int) -> list[Tensor]:
    """Boxes at random places, at the pixels, beyond the map, without a size."""
    generator, choose = _random(seed)
    height, width, scale = choose(1, 5, 8), choose(4, 9), choose(1., .5, .125)
    boxes = torch.rand(2, height, width, 5, generator=generator) * torch.tensor([height, width, 4, 4, 6]) / scale
    boxes[..., 4] *= scale
    if seed % 4 == 0:
        boxes.round_()
        boxes[..., 4] = 0
    if seed % 4 == 1:
        boxes[..., :2] = boxes[..., :2] * 3 - height / scale
    if seed % 4 == 2:
        boxes[..., 2:] = 0
    x = torch.randn(2, 3, height, width, generator=generator)
    return _with_gradients(lambda x: ops.rotated_feature_align(x, boxes, scale, choose(1, 5)), [x], generator)


def active_rotated_filter(seed: int) -> list[Tensor]:
    generator, choose = _random(seed)
    orientations, kernel, copies = choose(1, 4, 8), choose(1, 3), choose(1, 4, 8)
    places = [torch.randperm(orientations * kernel**2, generator=generator) + 1 for _ in range(copies)]
    indices = torch.stack(places, 1).view(orientations, kernel, kernel, copies).int()
    x = torch.randn(choose(1, 3), choose(1, 2), orientations, kernel, kernel, generator=generator)
    return _with_gradients(lambda x: ops.active_rotated_filter(x, indices), [x], generator)


def bezier_align(seed: int) -> list[Tensor]:
    """Curves: none, one, of one point, straight, beyond the map, random."""
    generator, choose = _random(seed)
    height, width, scale, number = choose(5, 8), choose(4, 9), choose(1., .5), {0: 0, 1: 1}.get(seed, choose(2, 5))
    curves = torch.rand(number, 8, 2, generator=generator)
    if seed == 2:
        curves[:] = curves[:, :1]
    if seed % 4 == 3:
        steps = torch.tensor([0, 1 / 3, 2 / 3, 1])
        curves[:, :, 0] = torch.cat([steps, steps.flip(0)])
        curves[:, :4, 1], curves[:, 4:, 1] = .25, .75
    if seed % 4 == 0:
        curves = curves * 3 - 1
    curves = curves * torch.tensor([width, height]) / scale
    batch = torch.randint(2, (number, 1), generator=generator)
    align = ops.BezierAlign(choose((2, 7), (3, 4), (1, 1)), scale, choose(0, 0, 1, 2), choose(True, False))
    x = torch.randn(2, 3, height, width, generator=generator)
    return _with_gradients(lambda x: align(x, torch.cat([batch, curves.flatten(1)], 1)), [x], generator)


def deform_conv2d(seed: int, modulated: bool = False) -> list[Tensor]:
    generator, choose = _random(seed)
    groups, offset_groups = choose(1, 2), choose(1, 2, 4)
    kernel, stride, padding, dilation = choose((1, 1), (3, 3), (3, 2)), choose(1, 2), choose(0, 1, 2), choose(1, 2)
    batch, height, width = choose(1, 2, 4), choose(5, 7), choose(6, 9)
    h, w = ((n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip((height, width), kernel))
    points = offset_groups * kernel[0] * kernel[1]
    offset = torch.randn(batch, 2 * points, h, w, generator=generator) * choose(.5, 3)
    if seed % 4 == 0:
        offset.zero_()  # as a new layer has it: the points lie on pixels and the border
    if seed % 4 == 1:
        offset.round_()
    inputs = [torch.randn(batch, 4, height, width, generator=generator), offset]
    inputs += [torch.rand(batch, points, h, w, generator=generator)] * modulated
    inputs += [torch.randn(6, 4 // groups, *kernel, generator=generator) * .3]
    if not modulated:
        step = choose(1, 32)
        return _with_gradients(lambda *x: ops.deform_conv2d(*x, stride, padding, dilation, groups, offset_groups,
                                                            False, step), inputs, generator)
    inputs += [torch.randn(6, generator=generator)] * choose(True, False)
    return _with_gradients(
        lambda x, offset, mask, weight, bias=None: ops.modulated_deform_conv2d(
            x, offset, mask, weight, bias, stride, padding, dilation, groups, offset_groups), inputs, generator)


def modulated_deform_conv2d(seed: int) -> list[Tensor]:
    return deform_conv2d(seed, modulated=True)


def modulated_deform_conv2d_of_a_larger_map(seed: int) -> list[Tensor]:
    """Offsets and masks of another size than the output, of which the start of each image's memory is read."""
    generator, choose = _random(seed)
    batch, groups, height, width = choose(1, 2, 3), choose(1, 2), choose(3, 5), choose(4, 6)
    more = choose((1, 0), (0, 2), (height, width), (0, 0))
    inputs = [torch.randn(batch, 4, height, width, generator=generator),
              torch.randn(batch, 18 * groups, height + more[0], width + more[1], generator=generator),
              torch.rand(batch, 9 * groups, height + more[1], width + more[0], generator=generator),
              torch.randn(6, 4, 3, 3, generator=generator) * .3, torch.randn(6, generator=generator)]
    return _with_gradients(lambda *x: ops.modulated_deform_conv2d(*x, 1, 1, 1, 1, groups), inputs, generator)


def psa_mask(seed: int) -> list[Tensor]:
    generator, choose = _random(seed)
    height, width, mask = choose(1, 3, 4), choose(2, 4), (choose(1, 3, 7), choose(3, 5, 4))
    x = torch.randn(2, mask[0] * mask[1], height, width, generator=generator)
    return _with_gradients(ops.PSAMask(('collect', 'distribute')[seed % 2], mask), [x], generator)


# Those that compiled mmcv has on the CPU
CASES: dict[str, Case] = {function.__name__: function for function in (
    nms, soft_nms, nms_match, batched_nms, bbox_overlaps, roi_align, deform_conv2d, modulated_deform_conv2d,
    modulated_deform_conv2d_of_a_larger_map, psa_mask,
    contour_expand, pixel_group, points_in_boxes_cpu, voxelization,
    rotated_feature_align, active_rotated_filter, bezier_align)}
