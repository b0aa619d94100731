"""The registry that makes ``type='dwnet.DWNet'`` known to every OpenMMLab toolbox.

mmengine imports ``<scope>.registry`` when it meets a scope that it does not know, so the name alone,
in any config, brings this package in.
"""
from mmengine.registry import MODELS, Registry

BACKBONES = Registry('backbone', parent=MODELS, scope='dwnet', locations=['dwnet.models'])
