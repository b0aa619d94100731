"""COCO's panoptic PNGs: a segment's id is red + 256·green + 256²·blue."""
import numpy as np


def rgb2id(color: np.ndarray) -> np.ndarray:
    """Ids, (H, W) int32, of colours, (H, W, 3) in the order RGB; one colour gives one id."""
    color = np.asarray(color, np.int32)
    return color[..., 0] + 256 * color[..., 1] + 256**2 * color[..., 2]


def id2rgb(id_map: np.ndarray) -> np.ndarray:
    """Colours, (H, W, 3) uint8 in the order RGB, of ids below 256³, (H, W)."""
    ids = np.asarray(id_map)
    return np.stack([ids % 256, ids // 256 % 256, ids // 256**2], -1).astype(np.uint8)
