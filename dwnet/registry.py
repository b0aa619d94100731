"""The registries that make ``type='dwnet.DWNet'`` and the like known to every OpenMMLab toolbox.

mmengine imports ``<scope>.registry`` when it meets a scope that it does not know, so the name alone,
in any config, brings this package in.
"""
import mmengine.registry
from mmengine.registry import DefaultScope, Registry

# What is imported before a type is looked for in the scope dwnet
LOCATIONS = {'model': 'dwnet.models', 'dataset': 'dwnet.datasets.coco', 'transform': 'dwnet.datasets.loading'}


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


def is_of(config: dict, cls: type) -> bool:
    """Whether a config's ``type`` is this class: itself, or its name with or without a scope or module."""
    kind = config.get('type')
    return kind is cls or isinstance(kind, str) and kind.rpartition('.')[2] == cls.__name__
