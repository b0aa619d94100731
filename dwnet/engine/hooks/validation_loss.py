"""The loss on the validation set: how far a training's loss has left it behind shows overfitting."""
import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dwnet.engine.reproducible import VALIDATION, randomness_kept, seed_generators
from dwnet.errors import one_line
from dwnet.toolboxes import toolbox_of

_FEATURES = ('backbone', 'neck', 'data_preprocessor')  # parts of a model that compute no loss
# In training mode these would drop something, or average over the batch
_NOISY = (_BatchNorm, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
          nn.MultiheadAttention)
_NOISY_NAMES = ('DropPath', 'StochasticDepth')  # several packages have a class of these names


@HOOKS.register_module()
class ValidationLossHook(Hook):
    """Logs the loss on the validation set as ``val/loss``, and the parts of the loss as ``val/…``.

    The images are those of the validation, so none is augmented. BatchNorms use their running statistics, and nothing
    is dropped. A second pass through the network computes the loss, after the predictions.

    The training goes on as without the hook: random numbers and buffers are restored. Detectors that sample boxes draw
    the same random numbers in each validation. A head that keeps other records of its losses sees the validation, too;
    of mmdet's heads, DynamicRoIHead does.

    If the loss cannot be computed, the log says why, once, and the training goes on without it.

    mmengine's validation loop can log losses that a model returns beside its predictions. No model of the toolboxes
    returns any. The loop also counts a small batch like a full one, averages what has to be summed up (the losses of a
    pyramid's levels), leaves out the other processes, and logs the mean of the last ten validations.
    """
    priority = 'HIGHEST'  # the other hooks, such as the log's, find the losses among the scores

    def __init__(self) -> None:
        self._reason = ''  # why there are no losses
        self._told = False
        self._sums: dict[str, Tensor] = {}
        self._images = 0

    def before_val_epoch(self, runner: Runner) -> None:
        scalars = runner.message_hub.log_scalars
        for key in [key for key in scalars if key.startswith('val/val/')]:
            del scalars[key]  # the log would have the mean of these and the new ones

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:  # a validation without a broken file begins again
            self._sums, self._images = {}, 0

    @torch.no_grad()
    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._reason:
            return
        model, rank = runner.model, get_rank()
        while is_model_wrapper(model):
            model = model.module
        try:
            # mmdet's heads average over the processes (reduce_mean), and would wait for one whose loss fails
            with (randomness_kept(), _computing_losses(model),
                  mock.patch('torch.distributed.is_initialized', return_value=False)):
                seed_generators(runner.seed, VALIDATION, batch_idx, rank)
                batch = model.data_preprocessor(data_batch, False)
                toolbox_of(runner.cfg).fit_truth_to_input(batch, model, runner.val_dataloader.dataset)
                _, losses = model.parse_losses(model(**batch, mode='loss'))
        except Exception as error:  # a model may ask for anything, or for too much memory
            self._reason = one_line(error)
            return
        for key, loss in losses.items():
            self._sums[key] = self._sums.get(key, 0) + len(outputs) * loss
        self._images += len(outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        sums = {key: float(value) for key, value in self._sums.items()}
        reasons, images, of_processes = zip(*all_gather_object((self._reason, self._images, sums)))
        self._reason = next(filter(None, reasons), '')
        if self._reason:
            if not self._told:
                runner.logger.warning(f'no loss on the validation set can be computed: {self._reason}')
            self._told = True
            return
        for key in sums:
            metrics[f'val/{key}'] = sum(part[key] for part in of_processes) / sum(images)


@contextlib.contextmanager
def _computing_losses(model: nn.Module) -> Iterator[None]:
    """Within the block, a model computes losses as in a training, but without noise; then it is as before.

    Many heads return for losses in training mode alone what losses need. So the heads are in training mode, all but
    their BatchNorms and dropout.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        for name, module in model.named_modules():
            module.training = not (name.partition('.')[0] in _FEATURES or isinstance(module, _NOISY)
                                   or type(module).__name__ in _NOISY_NAMES)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for buffer, before in buffers:  # BatchNorms have kept theirs, but some losses count
            buffer.copy_(before)
