"""Text instances grown from kernels: PSENet's and PAN's, as in mmcv's ``contour_expand.cpp`` and ``pixel_group.cpp``.

Each labelled pixel gives its label to its free neighbours, first come, first served. NumPy has the cheapest calls for
the many small steps; as in mmcv, the work is done on the CPU, and the results are lists.
"""
from collections.abc import Callable

import numpy as np
from torch import Tensor

from .precision import wide

# Neighbours as y, x; in any order, since all that one pixel reaches gets one label
STEPS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])

Accepts = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def contour_expand(kernel_mask: Tensor, internal_kernel_label: Tensor, min_kernel_area: int,
                   kernel_num: int) -> list[list[int]]:
    """Labels of all pixels of a text map, grown from the smallest kernels (PSENet, arXiv:1903.12473).

    As in mmcv, the kernels grow into the first mask at once: mmcv's steps over the masks between all read the first.

    Args:
        kernel_mask: (K, H, W), from the whole text map to the smallest kernels; one mask alone is not grown into.
        internal_kernel_label: (H, W), the label of each pixel of the smallest kernels, 0 for none.
        min_kernel_area: Kernels of fewer pixels are dropped.
        kernel_num: The largest label may be this.

    Returns:
        Rows of labels, (H, W).
    """
    text = kernel_mask.cpu().numpy()[0] != 0
    labels = internal_kernel_label.cpu().numpy()
    large = np.bincount(labels.ravel(), minlength=kernel_num + 1) >= min_kernel_area
    labels = np.where(large[labels], labels, 0)
    if len(kernel_mask) > 1:
        _flood(labels, np.argwhere(labels), lambda y, x, label: text[y, x])
    return labels.tolist()


def pixel_group(score: Tensor, mask: Tensor, embedding: Tensor, kernel_label: Tensor, kernel_contour: Tensor,
                kernel_region_label: int, distance_threshold: float) -> list[list[float]]:
    """Pixels of each text instance, grown from its kernel (PAN, arXiv:1908.05900).

    Args:
        score: (H, W), the confidence of text.
        mask: (H, W), True where there is text.
        embedding: (H, W, C); a pixel joins a kernel whose mean embedding is nearer than the threshold.
        kernel_label: (H, W), the label of each pixel of a kernel, 0 for none.
        kernel_contour: (H, W), not 0 on the rims of kernels, where the growth starts.
        kernel_region_label: Number of labels, 0 among them.
        distance_threshold: See above.

    Returns:
        For each label its mean confidence, number of pixels and x, y of every pixel; 0 and 0 for the label 0.
    """
    labels = kernel_label.cpu().numpy().copy()
    text, rim = mask.cpu().numpy(), kernel_contour.cpu().numpy() != 0
    pixels = wide(embedding.detach().cpu()).float().numpy()
    confidence = wide(score.detach().cpu()).float().numpy()
    with np.errstate(all='ignore'):  # a label without pixels has no mean
        centres = _sums(labels, pixels, kernel_region_label) / _sizes(labels, kernel_region_label)[:, None]
    threshold = np.float32(distance_threshold)**2

    def is_near(y: np.ndarray, x: np.ndarray, label: np.ndarray) -> np.ndarray:
        far, distance = ~text[y, x], np.zeros(len(y), np.float32)
        for centre, pixel in zip(centres[label].T, pixels[y, x].T):  # rounded after each channel, as in C
            distance = (distance + np.square(centre - pixel, dtype=np.float64)).astype(np.float32)
            far |= distance >= threshold
        return ~far

    _flood(labels, np.argwhere((labels > 0) & rim), is_near)
    with np.errstate(all='ignore'):
        sizes = _sizes(labels, kernel_region_label)
        means = _sums(labels, confidence[..., None], kernel_region_label)[:, 0] / sizes
    groups = [[0., 0.]] * min(kernel_region_label, 1)
    for label in range(1, kernel_region_label):
        points = np.argwhere(labels == label)[:, ::-1]
        groups.append([float(means[label]), float(sizes[label]), *points.ravel().astype(float).tolist()]
                      if len(points) else [0., 0.])
    return groups


def _flood(labels: np.ndarray, front: np.ndarray, accepts: Accepts) -> None:
    """Spreads labels from the pixels of ``front``, (N, 2) as y, x, in its order, as a first-in first-out queue would.

    Args:
        labels: (H, W), changed in place; a label that is 0 is free.
        front: The pixels to start from.
        accepts: Tells which of the free pixels y, x, (M,), take the labels, (M,), that are offered to them.
    """
    size = np.array(labels.shape)
    while len(front):
        near = (front[:, None] + STEPS).reshape(-1, 2)
        offered = labels[tuple(front.T)].repeat(len(STEPS))
        inside = ((near >= 0) & (near < size)).all(1)
        near, offered = near[inside], offered[inside]
        free = labels[tuple(near.T)] <= 0
        near, offered = near[free], offered[free]
        taken = accepts(*near.T, offered)
        near, offered = near[taken], offered[taken]
        first = np.sort(np.unique(near @ [labels.shape[1], 1], return_index=True)[1])
        front = near[first]
        labels[tuple(front.T)] = offered[first]


def _sums(labels: np.ndarray, values: np.ndarray, number: int) -> np.ndarray:
    """Sums of the values, (H, W, C), of each label: (number, C), added one after another in float32, as in C."""
    sums = np.zeros((number, values.shape[2]), np.float32)
    labelled = labels > 0
    np.add.at(sums, labels[labelled], values[labelled])
    return sums


def _sizes(labels: np.ndarray, number: int) -> np.ndarray:
    """Pixels of each label, (number,); none of the label 0."""
    return np.bincount(labels[labels > 0], minlength=number).astype(np.float32)
