"""Finds layers of a model by name, and records their outputs."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

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


@contextmanager
def outputs_of(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """The outputs of layers while a model computes, by name: ``with outputs_of(layers) as maps: model(x)``."""
    maps: dict[str, Tensor] = {}

    def keep(name: str, layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise UserError(f'{name} gives no map (batch, channels, height, width)')
        maps[name] = output

    handles = [layer.register_forward_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
