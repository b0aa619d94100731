"""What differs between OpenMMLab's toolboxes; DWNet in their configs and in timm.

=====================  =======================================================
``base``               what a toolbox has to answer
``mmpretrain``         image classification
``mmdet``              object detection
``mmseg``              semantic segmentation
``mmyolo``             object detection by the YOLO family
``mmrotate``           detection of rotated boxes
``mmpose``             keypoints
``mmaction``           recognition of actions in videos
``mmocr``              detection of text
``own_data``           a user's own data in a config of any toolbox
``pixels``             images of other channels and bits in a config of any toolbox
``checked``            data sets and image readers that report damage
``resized_truth``      ground truth of a validation in the pixels of the network's input
``graphs``             what an exported file computes
``swap``               DWNet in the place of another backbone
``hub_config``         a model's config as data, for a folder that is shared
``hub_types``          the types that such a config may name
``timm``               the same backbone with timm's head and interfaces
``timm_registration``  registers DWNet in timm when timm is imported
=====================  =======================================================
"""
import time

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from dwnet.errors import UserError, some
from dwnet.registry import lineage

from .base import SAY_WHICH, Toolbox, as_list
from .mmaction import MMAction
from .mmdet import MMDet
from .mmocr import MMOCR
from .mmpose import MMPose
from .mmpretrain import MMPretrain
from .mmrotate import MMRotate
from .mmseg import MMSeg
from .mmyolo import MMYOLO

TOOLBOXES: dict[str, Toolbox] = {toolbox.name: toolbox for toolbox in (
    MMPretrain(), MMDet(), MMSeg(), MMYOLO(), MMRotate(), MMPose(), MMAction(), MMOCR())}
# Score → its name in papers
SCORE_NAMES = {score: name for toolbox in TOOLBOXES.values() for score, name in toolbox.scores.items()}


def toolbox_of(config: dict) -> Toolbox:
    """The toolbox of a whole config.

    The ``default_scope`` decides if it names a toolbox. Otherwise (pure-Python configs have none, and a user's package
    has its own) the model's class or one of its base classes decides. If these name no toolbox either, the result is a
    plain :class:`~dwnet.toolboxes.base.Toolbox` with the config's scope, or None, as its name.
    """
    scope = config.get('default_scope')
    if scope in TOOLBOXES:
        return TOOLBOXES[scope]
    model = config.get('model')
    if isinstance(model, dict):  # a model may also be built already, or missing
        named = [str(model.get('type'))] if isinstance(model.get('type'), str) else []
        for name in (*named, *lineage(model, MODELS, scope)):
            if (package := name.partition('.')[0]) in TOOLBOXES:
                return TOOLBOXES[package]
    return Toolbox(scope)


def toolbox_of_model(model: nn.Module) -> Toolbox:
    """The toolbox of a built model, by its class and those it inherits from."""
    packages = [base.__module__.partition('.')[0] for base in type(model).__mro__]
    return next((TOOLBOXES[package] for package in packages if package in TOOLBOXES), Toolbox())


def known_toolbox_of(config: dict, what: str) -> Toolbox:
    """Like :func:`toolbox_of`, but only for toolboxes with a module here.

    Raises:
        UserError: If the config is of another toolbox; the message begins with ``what``, which needs the toolbox.
    """
    toolbox = toolbox_of(config)
    if not toolbox.task:
        raise UserError(f'{what} needs a config of {some(TOOLBOXES)}, as its default_scope or the class of its model '
                        f'says; this one is of {toolbox.name!r}')
    return toolbox


def main_score(cfg: Config) -> str:
    """The score that chooses the best checkpoint, by the toolbox's name for it.

    It is ``default_hooks.checkpoint.save_best`` if the config sets that, else the score that papers quote first.

    Raises:
        UserError: If the config sets no score and measures none of those.
    """
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    for chosen in as_list(checkpoint.get('save_best') or []):
        if chosen != 'auto':
            return chosen
    for metric in as_list(cfg.get('val_evaluator') or []):
        # the config's toolbox first: a metric may be derived from another toolbox's
        for toolbox in (toolbox_of(cfg), *TOOLBOXES.values()):
            if score := toolbox.score_of(metric, cfg.get('default_scope')):
                return score
    known = [name.rpartition('.')[2] for toolbox in TOOLBOXES.values() for name in toolbox.main_scores]
    raise UserError(f'val_evaluator of this config has none of {some(known)}: {SAY_WHICH}')


def enter_scope(config: dict) -> None:
    """Makes this process look up types in the config's toolbox, as in a training.

    mmengine's ``init_default_scope`` warns whenever the toolbox changes, and does not accept None.
    """
    scope = config.get('default_scope') or toolbox_of(config).name or 'mmengine'
    current = DefaultScope.get_current_instance()
    if current is None or current.scope_name != scope:
        DefaultScope.get_instance(f'{scope}-{time.time_ns()}', scope_name=scope)
