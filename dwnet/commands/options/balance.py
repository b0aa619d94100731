"""``--balance``: images with rare classes are drawn more often in a training."""
import copy
from collections import Counter

from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset
from mmengine.registry import DATASETS

from dwnet.engine.distributed.process_group import is_first
from dwnet.errors import UserError
from dwnet.registry import is_a
from dwnet.toolboxes import enter_scope
from dwnet.toolboxes.checked import with_checks


def enable_balance(cfg: Config, data_root: list[str] | None) -> None:
    """``--balance``. With own data ``enable_own_data`` has balanced the classes already."""
    if not data_root:
        balance(cfg)


def balance(cfg: Config) -> int:
    """Puts mmengine's ``ClassBalancedDataset`` around the training data.

    The wrapper draws an image ⌈√(t / f)⌉ times an epoch, where f is the share of images with the rarest class of the
    image (Gupta, Dollár and Girshick, "LVIS", CVPR 2019). Here t is half the share of the most frequent class. With a
    larger t the rounding up would double nearly all classes.

    Returns:
        The number of images in an epoch.

    Raises:
        UserError: If the data do not tell the classes of an image, or are balanced already.
    """
    enter_scope(cfg)
    part, scope = cfg.train_dataloader.dataset, cfg.get('default_scope')
    while True:
        if is_a(part, ClassBalancedDataset, DATASETS, scope):
            raise UserError('--balance: the config balances its training data already (ClassBalancedDataset)')
        if not isinstance(part.get('dataset'), dict):
            break
        part = part.dataset  # inside a wrapper that repeats or mixes images
    data = DATASETS.build(with_checks(copy.deepcopy(part)))
    try:
        classes = [frozenset(data.get_cat_ids(i)) for i in range(len(data))]
    except (AttributeError, NotImplementedError) as error:  # mmengine's base class has the method, without a body
        raise UserError(f'--balance is for classification and detection: a {type(data).__name__} does not tell the '
                        'classes of an image') from error
    images = Counter(label for of_image in classes for label in of_image)
    inner = copy.deepcopy(part)
    part.clear()
    part.update(type='ClassBalancedDataset', dataset=inner,
                oversample_thr=max(images.values(), default=0) / 2 / max(1, len(data)))
    number = len(DATASETS.build(with_checks(copy.deepcopy(cfg.train_dataloader.dataset))))
    if is_first(cfg.get('launcher', 'none')):
        print(f'--balance: an epoch draws {number} times from {len(data)} images')
    return number
