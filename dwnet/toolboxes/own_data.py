"""Puts a user's own data into a config: data sets, evaluators, and the number of classes of every head."""
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from dwnet.data import coco, cvat, drawn, folders, labelme, listing, masks, panoptic, voc, yolo
from dwnet.data.own import OwnData, read_own_data
from dwnet.errors import UserError, not_among
from dwnet.registry import is_a

from . import known_toolbox_of
from .base import as_list, innermost
from .pixels import use_pixels

# Task → the forms of its data, in the order of the search; the first that is there counts. folders, which takes any
# folder, comes last.
FORMS = dict(classification=(listing, folders), detection=(coco, yolo, voc, cvat, labelme),
             segmentation=(masks, *drawn.FORMS), panoptic=(panoptic, ))


def use_own_data(cfg: Config, *roots: str, form: str | None = None) -> OwnData:
    """Puts the data below ``roots`` into a config; of several, the score of each is measured, too.

    The pipelines stay. What the toolbox reads is written into ``cfg.work_dir``/data.

    Args:
        cfg: The config.
        roots: The data roots.
        form: The name of the data's form; by default the first form that is there.

    Raises:
        UserError: If no data are found, or names, classes or labels are wrong.
    """
    folders = [Path(root).expanduser().resolve() for root in roots]
    for root, folder in zip(roots, folders):
        if not folder.is_dir():
            raise UserError(f'--data-root {root} is no folder')
        if any(folder != other and folder.is_relative_to(other) for other in folders) or folders.count(folder) > 1:
            raise UserError(f'--data-root {root} is inside of another, or named twice: name each folder once')
    toolbox = known_toolbox_of(cfg, '--data-root')
    task = 'panoptic' if _tells_stuff(cfg.model) else toolbox.task
    if task not in FORMS:
        raise UserError(f'--data-root has no form of data for {toolbox.name}: set the dataloaders of the config')
    forms = {each.NAME: each for each in FORMS[task]}
    if form is not None and form not in forms:
        raise UserError(f"{not_among('--data-format', form, forms)} (for {task})")
    data = read_own_data(folders, task, [forms[form]] if form else forms.values(),
                         Path(cfg.work_dir, 'data').resolve())
    for part in ('train', 'val', 'test'):
        loader, found = cfg.get(f'{part}_dataloader'), part if part in data.parts else 'val'
        if loader is None:
            raise UserError(f'--data-root needs a config that trains and validates, and this one has no '
                            f'{part}_dataloader')
        dataset = innermost(loader.dataset)  # wrappers that repeat or mix images stay
        pipeline = [dict(step) for step in dataset.pipeline]
        for step in pipeline:
            if is_a(step, 'mmcv.LoadAnnotations', TRANSFORMS, cfg.get('default_scope')):
                step.pop('reduce_zero_label', None)
        dataset.clear()
        dataset.update(toolbox.own_dataset(data, found), pipeline=pipeline)
        if part != 'train':
            cfg[f'{part}_evaluator'] = _with_each_root(toolbox.own_evaluator(cfg, data, found), folders)
    toolbox.fit_to_data(cfg, data)
    things = data.things or len(data.classes)
    _set_num_classes(cfg.model, things, len(data.classes) - things)
    _set_num_classes(cfg.get('data_preprocessor'), len(data.classes))  # of mmpretrain's configs
    if data.pixels:
        data.notes += use_pixels(cfg, data.pixels)
    return data


def _with_each_root(evaluator: dict | list[dict], roots: list[Path]) -> dict | list[dict]:
    """The evaluator, or evaluators, of all images, and those of each root's."""
    if len(roots) == 1:
        return evaluator
    names = [root.name if [other.name for other in roots].count(root.name) == 1 else str(root) for root in roots]
    return [*as_list(evaluator), *(dict(type='dwnet.OfRoot', metric=metric, root=f'{root}{os.sep}', name=name)
                                   for root, name in zip(roots, names) for metric in as_list(evaluator))]


def _tells_stuff(model: Any) -> bool:
    """Whether a model's config is panoptic: a head tells stuff beside things."""
    if isinstance(model, dict):
        return bool(model.get('num_stuff_classes')) or any(map(_tells_stuff, model.values()))
    return isinstance(model, (list, tuple)) and any(map(_tells_stuff, model))


def _set_num_classes(model: Any, number: int, stuff: int = 0) -> None:
    """Sets the number of classes of each head in a model's config, and drops class weights of the old classes.

    Args:
        model: The config, or a part of it.
        number: How many classes there are, in panoptic data how many things.
        stuff: In panoptic data, how many classes of stuff there are.
    """
    if isinstance(model, (list, tuple)):
        for part in model:
            _set_num_classes(part, number, stuff)
    if not isinstance(model, dict):
        return
    both = 'num_stuff_classes' in model
    for key in ('num_classes', 'num_things_classes'):
        if key in model:
            before, now = (model[key] + model['num_stuff_classes'], number + stuff) if both else (model[key], number)
            for loss in (value for name, value in model.items() if name.startswith('loss')):
                _set_class_weight(loss, before, now)
            model[key] = number
    if both:
        model['num_stuff_classes'] = stuff
    for name, part in model.items():
        if 'rpn' not in name and (name != 'semantic_head' or stuff):
            _set_num_classes(part, number, stuff)


def _set_class_weight(loss: Any, before: int, number: int) -> None:
    for part in as_list(loss):
        weights = part.get('class_weight') if isinstance(part, dict) else None
        if isinstance(weights, (list, tuple)):
            # a weight more than classes is that of "no object"
            part['class_weight'] = None if len(weights) == before else [1.] * number + [weights[-1]]
