"""Functions for notebooks and scripts."""
import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from torch import nn

from dwnet.config_names import config_path
from dwnet.errors import UserError, one_line
from dwnet.models.deploy import switch_to_deploy
from dwnet.registry import class_of
from dwnet.toolboxes import enter_scope, hub_config, known_toolbox_of
from dwnet.toolboxes.swap import swap_backbone
from dwnet.weights.loading import load_weights, read_checkpoint
from dwnet.weights.stem import rgb_weights_fit

__all__ = ['inferencer', 'init_model', 'swap_backbone', 'switch_to_deploy']


def init_model(config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None = None,
               device: str = 'cpu') -> nn.Module:
    """Builds the model of a config, in eval mode, ready for ``test_step`` and the toolboxes' inferencers.

    Args:
        config: A config file, the name of one (``'dwnet::classification/dwnet-tiny_in1k.py'``), a config, or a folder
            that :func:`dwnet.deploy.hub.save_pretrained` wrote, which has weights, too.
        checkpoint: A ``.pth`` or ``.safetensors`` file or an address, of this project or official; None leaves
            the initialisation, which is random unless the config's ``init_cfg`` says otherwise. With
            ``new_heads=True`` in the config, heads whose shapes differ keep their initialisation.
        device: Where the model goes.

    Returns:
        The toolbox's model, such as mmpretrain's ``ImageClassifier``. ``cfg`` is the config; ``dataset_meta``
        has the names (``classes``) and colours (``palette``) of the classes, if they are known.

    Raises:
        UserError: If the weights cannot be read or do not fit the model, or a folder's config names anything that no
            shared config may name (:mod:`dwnet.toolboxes.hub_config`); nothing is imported or built then.

    Example:
        >>> from dwnet.apis import init_model
        >>> model = init_model('configs/classification/dwnet-tiny_in1k.py')
    """
    with _quiet():
        return _init_model(config, checkpoint, device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences mmengine's log of each initialised parameter, and toolboxes' warnings of their own deprecated calls."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.funcName != '_dump_init_info'

    logger = MMLogger.get_current_instance()
    logger.addFilter(is_wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', category=UserWarning, module=r'(importlib|mm\w+)\b')
            yield
    finally:
        logger.removeFilter(is_wanted)


def _init_model(config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None, device: str) -> nn.Module:
    if not isinstance(config, Config) and os.path.isdir(config):
        cfg, weights, classes = hub_config.read(Path(config))
        try:
            model: Any = _init_model(cfg, checkpoint or weights, device)
        except UserError:
            raise
        except Exception as error:  # a strange config may raise anything
            raise UserError(f'{config} builds no model: {one_line(error)}') from error
        model.dataset_meta = model._dataset_meta = _names_and_colours(classes)
        return model
    cfg = copy.deepcopy(config) if isinstance(config, Config) else Config.fromfile(config_path(config))
    enter_scope(cfg)
    if cfg.get('data_preprocessor') is not None:  # as in stock configs of mmpretrain; the Runner does the same
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    trained = cfg.model.get('module', cfg.model)  # inside the model of --slice
    if checkpoint is not None and trained.get('backbone'):
        trained.backbone.init_cfg = None  # the checkpoint brings all weights
    new_heads = cfg.get('new_heads', False)
    model = MODELS.build(copy.deepcopy(cfg.model))  # DINO and others write into their config
    if checkpoint is None or new_heads:
        with rgb_weights_fit(model):
            model.init_weights()
    trained_on = getattr(getattr(model, 'module', model), 'dataset_meta', None)  # an exported file has it
    if checkpoint is not None:
        content = read_checkpoint(str(checkpoint))
        trained = model.module if isinstance(model, BaseTTAModel) else model
        load_weights(trained, content['state_dict'], str(checkpoint), new_heads)
        meta = content.get('meta')
        trained_on = meta.get('dataset_meta') if isinstance(meta, dict) and not new_heads else None
    model.cfg = cfg
    model.dataset_meta = _names_and_colours(trained_on) or _of_test_data(cfg)
    model._config, model._dataset_meta = cfg, model.dataset_meta  # mmpretrain looks for these
    return model.to(device).eval()


def _of_test_data(cfg: Config) -> dict:
    dataset = cfg.get('test_dataloader') and cfg.test_dataloader.get('dataset')
    if not dataset:
        return {}
    try:
        return _names_and_colours(DATASETS.build({**copy.deepcopy(dataset), 'lazy_init': True}).metainfo)
    except Exception:  # some data sets need their files to be built; their classes have no names then
        return {}


def _names_and_colours(meta: Any) -> dict:
    """``classes`` and a ``palette`` of as many colours, checked, since a file may hold anything under these keys."""
    meta = meta if isinstance(meta, Mapping) else {}
    names, colours = meta.get('classes'), meta.get('palette')
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        return {}
    try:
        colours = np.asarray(colours, dtype=int).clip(0, 255)
        fitting = colours.ndim == 2 and colours.shape[1] == 3 and len(colours) >= len(names)
    except (TypeError, ValueError, OverflowError):
        fitting = False
    if not fitting:  # random, but the same each time
        colours = np.random.RandomState(42).randint(0, 256, (len(names), 3))
    return dict(classes=tuple(names), palette=[tuple(colour) for colour in colours[:len(names)].tolist()])


def inferencer(config: str | os.PathLike | Config, checkpoint: str | os.PathLike | None = None,
               device: str = 'cpu') -> Any:
    """The toolbox's own inferencer around the model of :func:`init_model`.

    Args:
        config: A config file or a config.
        checkpoint: As in :func:`init_model`.
        device: Where the model goes.

    Returns:
        mmpretrain's ``ImageClassificationInferencer``, mmdet's ``DetInferencer``, mmseg's ``MMSegInferencer``, or that
        of another toolbox. It is called with the path of an image, an array (H, W, 3; uint8, BGR), or a list of either,
        and ``batch_size``; mmaction's with the path of a video.

    Raises:
        UserError: If the weights cannot be read or do not fit, or the config is of a toolbox that is not known here.

    Example:
        >>> from dwnet.apis import inferencer
        >>> classify = inferencer('configs/classification/dwnet-nano_digits.py')
        >>> import numpy
        >>> classify(numpy.zeros((64, 64, 3), 'uint8'))[0]['pred_class'] in '0123456789'
        True
    """
    model: Any = init_model(config, checkpoint, device)
    toolbox = known_toolbox_of(model.cfg, 'inferencer')
    _name_transforms(model.cfg, toolbox.name)
    return toolbox.inferencer(model)


def _name_transforms(cfg: Config, scope: str | None) -> None:
    """Replaces classes and their import paths in the test pipeline by names: the inferencers look for names."""
    for step in (cfg.get('test_dataloader') or {}).get('dataset', {}).get('pipeline') or ():
        kind = class_of(step, TRANSFORMS, scope)
        name = getattr(kind, '__name__', None)
        if name and class_of(dict(type=name), TRANSFORMS, scope) is kind:
            step['type'] = name
