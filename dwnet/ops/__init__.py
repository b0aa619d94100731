from .depthwise import dynamic_depthwise_conv2d, inhomogeneous_depthwise_conv2d

__all__ = ['dynamic_depthwise_conv2d', 'inhomogeneous_depthwise_conv2d']
