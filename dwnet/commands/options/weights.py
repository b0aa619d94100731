"""Options for the weights with which a training or a test starts."""
import os
from pathlib import Path

from mmengine.config import Config

from dwnet.engine.checkpoints import checkpoints_in, pointed_at
from dwnet.errors import UserError
from dwnet.toolboxes import toolbox_of
from dwnet.weights.loading import read_checkpoint

from . import has_dwnet


def set_checkpoint(cfg: Config, checkpoint: str) -> None:
    """Sets the checkpoint to test."""
    cfg.resume = cfg.new_heads = False
    start_from(cfg, checkpoint)


def enable_load_from(cfg: Config, checkpoint: str, data_root: list[str] | None) -> None:
    """``--load-from FILE``. With own data the heads of FILE may be for other classes."""
    (start_with_new_heads if data_root else start_from)(cfg, checkpoint)


def start_from(cfg: Config, checkpoint: str) -> None:
    """Sets ``load_from``, and leaves out pretrained weights, since the checkpoint has all weights."""
    _must_exist(checkpoint)
    cfg.load_from = checkpoint
    _leave_out_pretrained(cfg)


def start_with_new_heads(cfg: Config, checkpoint: str) -> None:
    """``--load-from`` with own data: heads for other classes start from their initialisation.

    Weights without this model's heads, such as a classifier's, initialise the backbone alone.
    """
    _must_exist(checkpoint)
    weights = read_checkpoint(checkpoint)['state_dict']
    parts = {name.split('.')[0] for name in weights}
    # weights of a classifier, or of a model that shares no head with this model
    of_backbone = 'backbone' not in parts or not (parts - {'backbone', 'neck', 'head'}) & set(cfg.model)
    if of_backbone and toolbox_of(cfg).task != 'classification':
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        if 'backbone' in parts and not has_dwnet(cfg):  # without the prefix mmengine would load nothing, silently
            cfg.model.backbone.init_cfg.prefix = 'backbone.'
        cfg.load_from = None
    else:
        cfg.new_heads = True
        start_from(cfg, checkpoint)


def enable_resume(cfg: Config, checkpoint: str) -> None:
    """``--resume [CHECKPOINT]``: restores model, optimizer, schedule and epoch."""
    if checkpoint == 'auto':
        checkpoint = pointed_at(cfg.work_dir)
        if '://' not in checkpoint:  # checkpoints on a server are not listed
            if not checkpoints_in(cfg.work_dir):
                print(f'nothing to resume in {cfg.work_dir}: the training starts from the beginning')
                return
            cfg.resume, cfg.load_from = True, None  # the Runner finds the newest whole checkpoint
            _leave_out_pretrained(cfg)
            return
    cfg.resume = True
    start_from(cfg, checkpoint)


def resume_after_restart(cfg: Config) -> None:
    """After a restart by torchrun, resumes from what was written since tools/dist_train.sh was called."""
    pointer = Path(cfg.work_dir, 'last_checkpoint')
    if (int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0 and pointer.is_file()
            and pointer.stat().st_mtime >= float(os.environ.get('DWNET_LAUNCHED_AT', 'inf'))):
        enable_resume(cfg, 'auto')


def _leave_out_pretrained(cfg: Config) -> None:
    if cfg.model.get('backbone'):
        cfg.model.backbone.init_cfg = None


def _must_exist(checkpoint: str) -> None:
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint} is missing; training writes it into its work dir')
