"""The modules that are exported: the toolbox's preprocessing and a backbone or a classifier.

A graph is a module with ``axes``, which maps each output to the names of its dynamic dimensions, and ``reference``,
the original model's outputs for the same images. ``batch`` is the number of images, if the graph supports only one.
"""
import torch
from torch import Tensor, nn

from dwnet.models.layers import pad_to_multiple

SIDE = 256  # side of the image on which a backbone's strides are measured


def converts_to_rgb(preprocessor: nn.Module) -> bool:
    """Whether a data preprocessor makes RGB of the BGR that the toolboxes read."""
    # mmdet and mmengine, mmseg, and mmpretrain each name the switch differently
    switches = ('_channel_conversion', 'channel_conversion', 'to_rgb')
    return any(getattr(preprocessor, switch, False) for switch in switches)


def image_channels(model: nn.Module) -> int:
    """The number of channels of a model's images, by the first convolution of its backbone."""
    model = getattr(model, 'module', model)  # inside the model of --slice
    if hasattr(model, 'network'):  # an exported file
        return model.network.channels
    backbone = getattr(model, 'backbone', None)
    convolutions = (module for module in backbone.modules() if isinstance(module, nn.Conv2d)) if backbone else iter(())
    return getattr(next(convolutions, None), 'in_channels', 3)


class Normalise(nn.Module):
    """A toolbox's data preprocessor as a module: image → input of the network. Colour images are RGB of 0 to 255."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        preprocessor = model.data_preprocessor
        self.to_bgr = image_channels(model) == 3 and not converts_to_rgb(preprocessor)
        mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
        self.register_buffer('mean', torch.zeros(1, 1, 1) if mean is None else mean.clone())
        self.register_buffer('std', torch.ones(1, 1, 1) if std is None else std.clone())
        self.divisor = getattr(preprocessor, 'pad_size_divisor', 1)

    def forward(self, image: Tensor) -> Tensor:
        image = image.flip(1) if self.to_bgr else image
        image = (image - self.mean) / self.std
        return pad_to_multiple(image, self.divisor) if self.divisor > 1 else image


class Backbone(nn.Module):
    """The feature maps, one for each output of the graph."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.backbone = Normalise(model), model.backbone
        with torch.no_grad():
            maps = model.backbone(torch.zeros(1, image_channels(model), SIDE, SIDE))
        strides = [f'stride{SIDE // x.shape[-1]}' for x in ([maps] if isinstance(maps, Tensor) else maps)]
        names = [name if name not in strides[:i] else f'{name}_{strides[:i].count(name) + 1}'
                 for i, name in enumerate(strides)]
        self.axes = {name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'} for name in names}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(self.normalise(image))

    def reference(self, model: nn.Module, pictures: list[Tensor]) -> list[Tensor]:
        """The maps that the original model gives for pictures (C, H, W), colours BGR."""
        maps = model.backbone(model.data_preprocessor(dict(inputs=pictures), False)['inputs'])
        return [maps] if isinstance(maps, Tensor) else list(maps)


class Classifier(nn.Module):
    """Logits, (B, classes)."""
    axes = {'logits': {0: 'batch'}}

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.model = Normalise(model), model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(self.normalise(image), mode='tensor')

    def reference(self, model: nn.Module, pictures: list[Tensor]) -> list[Tensor]:
        """The logits that the original model gives for pictures (C, H, W), colours BGR."""
        return [model(model.data_preprocessor(dict(inputs=pictures), False)['inputs'], mode='tensor')]
