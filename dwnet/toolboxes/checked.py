"""Data that are checked when a data set reads them, in the place of what reads past damage."""
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.registry import DATASETS, TRANSFORMS, Registry

from dwnet.registry import class_of, lineage

from . import TOOLBOXES


def with_checks(config: Any, registry: Registry = DATASETS) -> Any:
    """A copy of a data set's config, in which ours reads what mmcv or a toolbox would read and pass over damage.

    The configs keep the usual names, since the toolboxes' inferencers look for them. Subclasses, which may read in
    another way, stay.

    Args:
        config: A data set's config, or a part of it.
        registry: Where its ``type`` is looked for.
    """
    if isinstance(config, (list, tuple)):
        return [with_checks(part, registry) for part in config]
    if not isinstance(config, dict):
        return config
    inner = dict(dataset=DATASETS, datasets=DATASETS, pipeline=TRANSFORMS, transforms=TRANSFORMS)
    config = {key: with_checks(value, inner[key]) if key in inner else value for key, value in config.items()}
    if registry is DATASETS:
        kind = lineage(config, DATASETS)[:1]  # the class itself, and none that it inherits from
        for toolbox in TOOLBOXES.values():
            if kind and kind[0] in toolbox.checked_datasets:
                config['type'] = toolbox.checked_datasets[kind[0]]
    elif (class_of(config, TRANSFORMS) is LoadImageFromFile
          and not {'ignore_empty', 'file_client_args'} & config.keys()):
        config['type'] = 'dwnet.LoadWholeImage'
    return config
