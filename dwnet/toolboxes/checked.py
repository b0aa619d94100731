"""Puts data sets and readers that report damage in the place of those that pass over damage."""
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.registry import DATASETS, TRANSFORMS, Registry

from dwnet.registry import class_of, lineage

from . import TOOLBOXES


def with_checks(config: Any, registry: Registry = DATASETS) -> Any:
    """A copy of a data set's config with the checked data sets and readers of this package.

    Config files keep the usual names, since the toolboxes' inferencers look for these names. Subclasses of the usual
    classes stay, since a subclass may read in another way.

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
        kind = lineage(config, DATASETS)[:1]  # the class itself, not its base classes
        for toolbox in TOOLBOXES.values():
            if kind and kind[0] in toolbox.checked_datasets:
                config['type'] = toolbox.checked_datasets[kind[0]]
    elif (reader := _checked_reader(config)) and not {'ignore_empty', 'file_client_args'} & config.keys():
        config['type'] = reader
    return config


def _checked_reader(step: dict) -> str:
    """The class that reads in the place of a step; empty if none does."""
    if class_of(step, TRANSFORMS) is LoadImageFromFile:  # mmcv's
        return 'dwnet.LoadWholeImage'
    kind = lineage(step, TRANSFORMS)[:1]
    return next((toolbox.checked_readers[kind[0]] for toolbox in TOOLBOXES.values()
                 if kind and kind[0] in toolbox.checked_readers), '')
