"""Finds layers of a model by name, and records their outputs."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dwnet.errors import UserError
from dwnet.models import DWNet


def find_layers(model: nn.Module, names: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Layers by name; by default the stages of the DWNet in a model.

    Raises:
        UserError: If a layer does not exist.
    """
    modules = dict(model.named_modules())
    if not names:
        names = [f'{name}.stages.{i}'.lstrip('.') for name, module in modules.items() if isinstance(module, DWNet)
                 for i in range(len(module.stages))]
        if not names:
            raise UserError('this model holds no DWNet: name its layers, such as --layers backbone.layer3')
    if missing := [name for name in names if name not in modules]:
        known = ', '.join(name for name in modules if name.count('.') <= 2 and name.startswith('backbone.'))
        raise UserError(f"the model has no layer {', '.join(missing)}; it has {known}, and what is below them")
    return {name: modules[name] for name in names}


class Outputs:
    """Records the outputs of layers: ``with Outputs(layers) as outputs: model(x)``."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self._layers = layers
        self.maps: dict[str, Tensor] = {}

    def __enter__(self) -> dict[str, Tensor]:
        self._handles = [layer.register_forward_hook(self._keep(name)) for name, layer in self._layers.items()]
        return self.maps

    def _keep(self, name: str):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if not isinstance(output, torch.Tensor) or output.ndim != 4:
                raise UserError(f'{name} gives no map (batch, channels, height, width)')
            self.maps[name] = output
        return hook

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()
