"""Draws training images as the network gets them: augmented, mixed and padded, with the normalisation undone."""
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import MODELS

from dwnet.engine import Runner
from dwnet.errors import UserError
from dwnet.toolboxes import enter_scope, toolbox_of
from dwnet.toolboxes.pixels import has_own_range

from .figure import contact_sheet
from .samples import draw, make_visualizer, to_picture


def browse(cfg: Config, split: str = 'train', number: int = 16, seed: int = 0) -> Figure:
    """A sheet of the first batch of a data set, with its labels, boxes and masks.

    Args:
        cfg: A config of mmpretrain, mmdet or mmseg.
        split: ``'train'``, ``'val'`` or ``'test'``.
        number: Number of images; fewer if the set has fewer.
        seed: Seed of the order, if the config shuffles.

    Raises:
        UserError: If the set is empty, or ``number`` is below 1.
    """
    if number < 1:
        raise UserError(f'number {number}: it has to be 1 or more')
    enter_scope(cfg)
    loader = dict(cfg[f'{split}_dataloader'], batch_size=number, num_workers=0, persistent_workers=False,
                  drop_last=False)
    loader = Runner.build_dataloader(loader, seed=seed)
    batch = next(iter(loader), None)
    if batch is None:
        raise UserError(f'the {split} data are empty')
    preprocessor = MODELS.build(toolbox_of(cfg).preprocessor(cfg))
    data = preprocessor(batch, training=split == 'train')
    visualizer = make_visualizer(cfg, loader.dataset.metainfo, 'browse')
    pictures, captions, stretch = [], [], has_own_range(cfg)
    for inputs, sample in zip(data['inputs'], data['data_samples']):
        picture = to_picture(inputs, preprocessor, stretch)
        pictures.append(draw(visualizer, picture, _with_mixed_labels(sample), truth=True))
        captions.append(f"{Path(sample.get('img_path', '')).name[-20:]}, {inputs.shape[-1]}×{inputs.shape[-2]}")
    return contact_sheet(pictures, captions, title=f'{split}: {len(pictures)} of {len(loader.dataset)} images')


def _with_mixed_labels(sample: Any) -> Any:
    """Sets all labels of a mixed image: Mixup and CutMix keep one label, but scores for all."""
    if 'gt_score' in sample:
        sample.set_gt_label(np.flatnonzero(sample.gt_score.numpy()).tolist())
    return sample
