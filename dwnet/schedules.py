"""The learning rate of the official ImageNet runs, which no combination of mmengine's schedulers gives."""
import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    """A linear warm-up, then the rest of a cosine that began at step 0: timm's ``CosineLRScheduler``.

    The cosine counts the warm-up's steps, so after the warm-up the rate continues a little below its peak. OpenMMLab's
    other schedulers begin the cosine after the warm-up. Start and end are factors of the base rate, so both are scaled
    with the batch size, as in the official code.

    Args:
        optimizer: The optimizer or its wrapper.
        warmup: Length of the warm-up, in epochs or iterations.
        end: Length of warm-up and cosine together, by default that of the training.
        start_factor: The first rate, relative to the base rate.
        end_factor: The last rate, relative to the base rate.
        kwargs: As for all schedulers of mmengine.
    """

    def __init__(self, optimizer: Any, warmup: int, end: int, start_factor: float, end_factor: float,
                 **kwargs: Any) -> None:
        self.warmup, self.start_factor, self.end_factor = warmup, start_factor, end_factor
        super().__init__(optimizer, end=end, **kwargs)

    @classmethod
    def build_iter_from_epoch(cls, *args: Any, warmup: int, end: int, epoch_length: int,
                              **kwargs: Any) -> 'WarmupCosineLR':
        """mmengine calls this for ``convert_to_iter_based=True``."""
        kwargs |= dict(by_epoch=False, warmup=warmup * epoch_length, end=end * epoch_length)
        return cls(*args, **kwargs)

    def _get_value(self) -> list[float]:
        step = self.last_step
        if step < self.warmup:
            factor = self.start_factor + (1 - self.start_factor) * step / self.warmup
        else:
            factor = self.end_factor + (1 - self.end_factor) * (1 + math.cos(math.pi * step / self.end)) / 2
        return [base * factor for base in self.base_values]
