"""Keeps the scores of each class, so that a report can show those of the best checkpoint."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from dwnet.toolboxes import toolbox_of

_KEY = 'class_scores'


@HOOKS.register_module()
class ClassScoresHook(Hook):
    """Writes the scores of each class into mmengine's message hub, which checkpoints hold; so a resume keeps them."""

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        # checkpoints are written later, with a lower priority
        runner.message_hub.update_info(_KEY, toolbox_of(runner.cfg).class_scores(runner.val_loop.evaluator))


def class_scores_in(checkpoint: dict) -> dict[str, list]:
    """The scores of each class that a checkpoint holds, see ``Toolbox.class_scores``; empty if it holds none."""
    return (checkpoint.get('message_hub') or {}).get('runtime_info', {}).get(_KEY) or {}
