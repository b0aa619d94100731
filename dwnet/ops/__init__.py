from .depthwise import (
    choose_backend,
    depthwise_conv2d,
    dynamic_depthwise_conv2d,
    inhomogeneous_depthwise_conv2d,
    predicted_depthwise_conv2d,
)
from .linear import linear

__all__ = ['choose_backend', 'depthwise_conv2d', 'dynamic_depthwise_conv2d', 'inhomogeneous_depthwise_conv2d',
           'linear', 'predicted_depthwise_conv2d']
