"""The registries that make ``type='dwnet.DWNet'`` and the like known to every OpenMMLab toolbox.

mmengine imports ``<scope>.registry`` when it meets a scope that it does not know, so the name alone,
in any config, brings this package in.
"""
import time
from typing import Any

import mmengine.registry
from mmengine.registry import DefaultScope, Registry

# Toolbox → the extra of ours that installs it
TOOLBOXES = {'mmpretrain': 'cls', 'mmdet': 'det', 'mmseg': 'seg'}
# What is imported before a type is looked for in the scope dwnet
LOCATIONS = {'model': 'dwnet.models', 'dataset': 'dwnet.data.coco', 'transform': 'dwnet.data.loading'}


class InToolbox(Registry):
    """A registry of this package; types that it does not hold are those of the toolbox around it.

    What a config has from ``_base_ = 'dwnet::…'`` is built by mmengine in the scope ``dwnet``, also the toolboxes' own
    types, which mmengine would then look for in itself alone.
    """

    def get(self, key: str) -> type | None:
        self.import_from_location()
        if '.' not in key and key not in self._module_dict:
            for scope in reversed(DefaultScope._instance_dict.values()):  # the innermost first
                toolbox = self.parent._search_child(scope.scope_name)
                if toolbox is not None and toolbox.scope not in ('dwnet', 'mmengine'):
                    return toolbox.get(key)
        return super().get(key)


# One below each of mmengine's.
REGISTRIES = {root.name: InToolbox(root.name, parent=root, scope='dwnet', locations=[LOCATIONS.get(root.name, 'dwnet')])
              for root in vars(mmengine.registry).values() if isinstance(root, Registry)}
BACKBONES, DATASETS, TRANSFORMS = (REGISTRIES[name] for name in LOCATIONS)
# What `token_mixer` of DWNet names; a mixer of a user's own is added by `@TOKEN_MIXERS.register_module('its name')`.
TOKEN_MIXERS = Registry('token mixer', scope='dwnet', locations=['dwnet.models'])


def class_of(config: dict, registry: Registry, scope: str | None = None) -> Any:
    """The class that ``registry`` would build for a config's ``type``; None if there is none.

    Args:
        config: A part of a config; its ``type`` is a name, with or without a scope or module, or the class itself.
        registry: mmengine's root registry of such parts.
        scope: The config's default scope; by default that of this process.
    """
    kind = config.get('type')
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(config.get('_scope_') or scope) as own:
        try:
            return own.get(kind)
        except Exception:  # an unknown name, or a package that cannot be imported: building it will say
            return None


def lineage(config: dict, registry: Registry, scope: str | None = None) -> list[str]:
    """The class of :func:`class_of` and what it inherits from, by package and name: ``'mmdet.CocoMetric'`` and so on.

    So a class of a toolbox is recognised, and its subclasses, without importing the toolbox.
    """
    return [f"{base.__module__.partition('.')[0]}.{base.__name__}"
            for base in getattr(class_of(config, registry, scope), '__mro__', ())]


def is_of(config: dict, cls: type, registry: Registry, scope: str | None = None) -> bool:
    """Whether a config's ``type`` is this class, and no subclass of it."""
    return class_of(config, registry, scope) is cls


def type_name(config: dict) -> str:
    """A config's ``type`` in a message."""
    kind = config.get('type')
    return getattr(kind, '__name__', str(kind))


def toolbox_of(config: dict) -> str | None:
    """The toolbox that a whole config is for, 'mmpretrain', 'mmdet' or 'mmseg'.

    It is the ``default_scope``, or, where this is None, as in pure-Python configs, or a package of the user's, the
    package of the model's class, or of one that it inherits from. A scope of any other kind is returned as it is.
    """
    scope = config.get('default_scope')
    if scope in TOOLBOXES:
        return scope
    model = config.get('model')
    if not isinstance(model, dict):  # built already, or missing
        return scope
    named = [str(model.get('type'))] if isinstance(model.get('type'), str) else []
    for name in (*named, *lineage(model, mmengine.registry.MODELS, scope)):
        if (package := name.partition('.')[0]) in TOOLBOXES:
            return package
    return scope


def enter_scope(config: dict) -> None:
    """From here on types are looked for in the toolbox of this config, as in its training.

    mmengine's ``init_default_scope`` warns whenever the toolbox is another one than before, and takes no None.
    """
    scope = config.get('default_scope') or toolbox_of(config) or 'mmengine'
    current = DefaultScope.get_current_instance()
    if current is None or current.scope_name != scope:
        DefaultScope.get_instance(f'{scope}-{time.time_ns()}', scope_name=scope)
