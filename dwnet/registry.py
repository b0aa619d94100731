"""The registries that make ``type='dwnet.DWNet'`` and the like known to every OpenMMLab toolbox.

mmengine imports ``<scope>.registry`` when it meets a scope that it does not know, so the name alone,
in any config, brings this package in.
"""
from mmengine.registry import DATASETS as ALL_DATASETS
from mmengine.registry import MODELS, Registry
from mmengine.registry import TRANSFORMS as ALL_TRANSFORMS

BACKBONES = Registry('backbone', parent=MODELS, scope='dwnet', locations=['dwnet.models'])
DATASETS = Registry('dataset', parent=ALL_DATASETS, scope='dwnet', locations=['dwnet.datasets.coco'])
TRANSFORMS = Registry('transform', parent=ALL_TRANSFORMS, scope='dwnet', locations=['dwnet.datasets.loading'])


def is_of(config: dict, cls: type) -> bool:
    """Whether a config's ``type`` is this class: itself, or its name with or without a scope or module."""
    kind = config.get('type')
    return kind is cls or isinstance(kind, str) and kind.rpartition('.')[2] == cls.__name__
