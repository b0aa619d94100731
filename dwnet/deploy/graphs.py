"""The modules that are exported: the toolbox's preprocessing and a classifier, segmentor or backbone."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwnet.models.layers import pad_to_multiple

SIDE = 256  # side of the image on which a backbone's strides are measured


class Normalise(nn.Module):
    """A toolbox's data preprocessor as a module: RGB of 0 to 255 → input of the network."""

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        # the toolboxes read BGR; mmdet and mmengine, mmseg, and mmpretrain each name the switch differently
        switches = ('_channel_conversion', 'channel_conversion', 'to_rgb')
        self.to_bgr = not any(getattr(preprocessor, switch, False) for switch in switches)
        mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
        self.register_buffer('mean', torch.zeros(3, 1, 1) if mean is None else mean.clone())
        self.register_buffer('std', torch.ones(3, 1, 1) if std is None else std.clone())
        self.divisor = getattr(preprocessor, 'pad_size_divisor', 1)

    def forward(self, image: Tensor) -> Tensor:
        image = image.flip(1) if self.to_bgr else image
        image = (image - self.mean) / self.std
        return pad_to_multiple(image, self.divisor) if self.divisor > 1 else image


class Backbone(nn.Module):
    """The feature maps, one for each output of the graph."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.backbone = Normalise(model.data_preprocessor), model.backbone
        with torch.no_grad():
            maps = model.backbone(torch.zeros(1, 3, SIDE, SIDE))
        strides = [f'stride{SIDE // x.shape[-1]}' for x in ([maps] if isinstance(maps, Tensor) else maps)]
        names = [name if name not in strides[:i] else f'{name}_{strides[:i].count(name) + 1}'
                 for i, name in enumerate(strides)]
        self.axes = {name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'} for name in names}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(self.normalise(image))


class Classifier(nn.Module):
    """Logits, (B, classes)."""
    axes = {'logits': {0: 'batch'}}

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.model = Normalise(model.data_preprocessor), model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(self.normalise(image), mode='tensor')


class Segmentor(nn.Module):
    """Logits of each pixel, (B, classes, H, W), of the whole image, without sliding windows."""
    axes = {'logits': {0: 'batch', 2: 'height', 3: 'width'}}

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.model = Normalise(model.data_preprocessor), model
        for module in model.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                    setattr(module, name, AdaptiveAvgPool(child.output_size))

    def forward(self, image: Tensor) -> Tensor:
        logits = self.model(self.normalise(image), mode='tensor')
        return F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=self.model.align_corners)


class AdaptiveAvgPool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products: ONNX has no such operator for maps of any size."""

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._shares(cells, length) for cells, length in zip(self.size, x.shape[2:]))
        return rows @ x @ columns.t()

    @staticmethod
    def _shares(cells: int, length: int) -> Tensor:
        """(cells, length): the weight of each position in the mean of each cell."""
        cell, position = torch.arange(cells)[:, None], torch.arange(length)
        first, last = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
        return ((position >= first) & (position < last)).float() / (last - first).float()
