"""Maps behind the backbone that some heads want, and that DWNet does not have."""
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from dwnet.registry import REGISTRIES


@REGISTRIES['model'].register_module()
class ExtraMaps(BaseModule):
    """Appends maps to a pyramid, each of half the size of the map before it.

    ``(…, (B, C, H, W))`` → ``(…, (B, C, H, W), (B, C, ⌈H/2⌉, ⌈W/2⌉), …)``. A strided convolution, BatchNorm and GELU
    make each map, as the last stages of a YOLO of 64 strides and the extra levels of SSD are made.

    Args:
        channels: Channels C of the last map.
        number: How many maps are appended.
        init_cfg: As in mmengine.

    Example:
        >>> import torch
        >>> maps = ExtraMaps(channels=8)([torch.rand(2, 4, 10, 14), torch.rand(2, 8, 5, 7)])
        >>> [tuple(x.shape) for x in maps]
        [(2, 4, 10, 14), (2, 8, 5, 7), (2, 8, 3, 4)]
    """

    def __init__(self, channels: int, number: int = 1, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.stages = ModuleList([
            ConvModule(channels, channels, 3, stride=2, padding=1, norm_cfg=dict(type='BN'), act_cfg=dict(type='GELU'))
            for _ in range(number)])

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        pyramid = [*maps]
        for stage in self.stages:
            pyramid.append(stage(pyramid[-1]))
        return tuple(pyramid)
