"""The registries that make ``type='dwnet.DWNet'`` and the like known to every OpenMMLab toolbox.

mmengine imports ``<scope>.registry`` when it meets an unknown scope, so the name in a config suffices.
"""
import contextlib
import importlib
from typing import Any

import mmengine.registry
from mmengine.registry import DefaultScope, Registry

# Modules that are imported before a type is looked up in the scope dwnet
LOCATIONS = {'model': 'dwnet.models', 'dataset': 'dwnet.toolboxes.datasets', 'transform': 'dwnet.data.loading',
             'metric': 'dwnet.toolboxes.metrics'}


class InToolbox(Registry):
    """A registry of this package that looks up other types in the surrounding toolbox.

    mmengine builds all parts from ``_base_ = 'dwnet::…'`` in the scope ``dwnet``, including the toolboxes' types, for
    which mmengine alone would look only in its own registries.
    """

    def get(self, key: str) -> type | None:
        self.import_from_location()
        if '.' not in key and key not in self._module_dict:
            for scope in reversed(DefaultScope._instance_dict.values()):  # the innermost first
                with contextlib.suppress(ImportError):  # mmengine does so where it enters the scope
                    importlib.import_module(f'{scope.scope_name}.registry')
                toolbox = self.parent._search_child(scope.scope_name)
                if toolbox is not None and toolbox.scope not in ('dwnet', 'mmengine'):
                    return toolbox.get(key)
        return super().get(key)


# A child of each root registry of mmengine
REGISTRIES = {root.name: InToolbox(root.name, parent=root, scope='dwnet', locations=[LOCATIONS.get(root.name, 'dwnet')])
              for root in vars(mmengine.registry).values() if isinstance(root, Registry)}
BACKBONES, DATASETS, TRANSFORMS, METRICS = (REGISTRIES[name] for name in LOCATIONS)
# What `token_mixer` of DWNet names; `@TOKEN_MIXERS.register_module('its name')` adds a user's own mixer
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
        except Exception:  # an unknown name, or a broken package: the build reports it
            return None


def lineage(config: dict, registry: Registry, scope: str | None = None) -> list[str]:
    """The class of :func:`class_of` and its base classes, by package and name: ``'mmcv.Pad'`` and so on.

    The names recognise a toolbox's class without an import of the toolbox.
    """
    return [f"{base.__module__.partition('.')[0]}.{base.__name__}"
            for base in getattr(class_of(config, registry, scope), '__mro__', ())]


def is_a(config: dict, kind: type | tuple[type, ...] | str, registry: Registry, scope: str | None = None) -> bool:
    """Whether the class of a config's ``type`` is ``kind`` or inherits from it.

    Args:
        config: A part of a config.
        kind: A class, several classes of which one suffices, or package and name of a class: ``'mmcv.Pad'``.
        registry: mmengine's root registry of such parts.
        scope: The config's default scope; by default that of this process.
    """
    if isinstance(kind, str):
        return kind in lineage(config, registry, scope)
    found = class_of(config, registry, scope)
    return isinstance(found, type) and issubclass(found, kind)


def type_name(config: dict) -> str:
    """The name of a config's ``type``, for messages."""
    kind = config.get('type')
    return getattr(kind, '__name__', str(kind))
