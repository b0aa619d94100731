from .depthwise import (
    choose_backend,
    depthwise_conv2d,
    dynamic_depthwise_conv2d,
    inhomogeneous_depthwise_conv2d,
    predicted_depthwise_conv2d,
)

__all__ = ['choose_backend', 'depthwise_conv2d', 'dynamic_depthwise_conv2d', 'inhomogeneous_depthwise_conv2d',
           'predicted_depthwise_conv2d']
