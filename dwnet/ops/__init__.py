from .depthwise import (
    choose_backend,
    depthwise_conv2d,
    dynamic_depthwise_conv2d,
    inhomogeneous_depthwise_conv2d,
    predicted_depthwise_conv2d,
)
from .torch_forms import operators_kept
from .trial import verdicts

__all__ = ['choose_backend', 'depthwise_conv2d', 'dynamic_depthwise_conv2d', 'inhomogeneous_depthwise_conv2d',
           'operators_kept', 'predicted_depthwise_conv2d', 'verdicts']
