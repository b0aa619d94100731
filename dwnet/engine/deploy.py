"""Testing with the BatchNorms folded."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from dwnet.apis import switch_to_deploy


@HOOKS.register_module()
class DeployHook(Hook):
    """Folds the backbone's BatchNorms when the weights are loaded and before the first image is tested."""

    def before_test(self, runner: Runner) -> None:
        switch_to_deploy(runner.model)
        runner.logger.info('the BatchNorms of the backbone are folded')
