"""Weights for RGB images in a model for images of another number of channels.

The rule is that of timm's ``adapt_input_conv`` (Ross Wightman, https://github.com/huggingface/pytorch-image-models):
one channel gets the sum of the weights for red, green and blue; of more channels each gets those for red, green, blue,
red, … in turn, times 3 / the number of channels. The sum over the channels stays the same, so the layers behind see
values of the usual size.
"""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

RGB = 3


def fits_after_adapting(weight: Tensor, wanted: Tensor) -> bool:
    """Whether ``weight`` is that of a convolution of RGB, and ``wanted`` the same for other channels."""
    return (weight.ndim == 4 and weight.shape[1] == RGB != wanted.shape[1]
            and weight.shape[:1] + weight.shape[2:] == wanted.shape[:1] + wanted.shape[2:])


def adapted(weight: Tensor, channels: int) -> Tensor:
    """The weight of a convolution of RGB, (O, 3, h, w), for images of ``channels`` channels: (O, channels, h, w)."""
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [i % RGB for i in range(channels)]] * (RGB / channels)


@contextmanager
def rgb_weights_fit(model: nn.Module) -> Iterator[None]:
    """Within the context, convolutions of the model also load weights for RGB images.

    mmengine's ``init_cfg=dict(type='Pretrained', …)`` loads by the usual hooks of PyTorch, and leaves a convolution of
    another shape random, with a warning.
    """

    def adapt(module: nn.Conv2d, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
        weight = state_dict.get(f'{prefix}weight')
        if weight is not None and fits_after_adapting(weight, module.weight):
            state_dict[f'{prefix}weight'] = adapted(weight, module.in_channels)

    hooks = [module.register_load_state_dict_pre_hook(adapt) for module in model.modules()
             if isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels != RGB]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
