"""mmengine's early stopping with its state in checkpoints, so that a resumed training stops at the same epoch."""
from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """Ends the training after ``patience`` validations in a row without a better score."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['early_stopping'] = dict(best_score=float(self.best_score), wait_count=self.wait_count)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume and 'early_stopping' in checkpoint:
            state = checkpoint['early_stopping']
            self.best_score, self.wait_count = float(state['best_score']), int(state['wait_count'])
