"""The registries that make ``type='dwnet.DWNet'`` and the like known to every OpenMMLab toolbox.

mmengine imports ``<scope>.registry`` when it meets a scope that it does not know, so the name alone,
in any config, brings this package in.
"""
import contextlib
import importlib
from typing import Any

import mmengine.registry
from mmengine.registry import DefaultScope, Registry

# What is imported before a type is looked for in the scope dwnet
LOCATIONS = {'model': 'dwnet.models', 'dataset': 'dwnet.toolboxes.datasets', 'transform': 'dwnet.data.loading'}


class InToolbox(Registry):
    """A registry of this package; types that it does not hold are those of the toolbox around it.

    What a config has from ``_base_ = 'dwnet::…'`` is built by mmengine in the scope ``dwnet``, also the toolboxes' own
    types, which mmengine would then look for in itself alone.
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
    """The class of :func:`class_of` and the classes it inherits from, by package and name: ``'mmcv.Pad'`` and so on.

    So a class of a toolbox is recognised without an import of the toolbox.
    """
    return [f"{base.__module__.partition('.')[0]}.{base.__name__}"
            for base in getattr(class_of(config, registry, scope), '__mro__', ())]


def is_a(config: dict, kind: type | tuple[type, ...] | str, registry: Registry, scope: str | None = None) -> bool:
    """Whether the class of a config's ``type`` is ``kind`` or inherits from it.

    Args:
        config: A part of a config.
        kind: A class, several of which one suffices, or package and name of a class: ``'mmcv.Pad'``.
        registry: mmengine's root registry of such parts.
        scope: The config's default scope; by default that of this process.
    """
    if isinstance(kind, str):
        return kind in lineage(config, registry, scope)
    found = class_of(config, registry, scope)
    return isinstance(found, type) and issubclass(found, kind)


def type_name(config: dict) -> str:
    """A config's ``type`` in a message."""
    kind = config.get('type')
    return getattr(kind, '__name__', str(kind))
