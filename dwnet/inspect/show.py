"""Draws each prediction of a test beside the ground truth, for images that the toolboxes' hooks cannot draw.

The toolboxes read images of the pictures as 8-bit colour.
"""
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image

from .samples import PictureReader, draw, make_visualizer


@HOOKS.register_module()
class ShowHook(Hook):
    """Writes FOLDER/NAME_PLACE.png for each test image: the truth on the left, the prediction on the right.

    The place is that among all test images, since folders of classes may have images of the same name.

    Args:
        folder: Where the pictures go; the folder is made.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def before_test(self, runner: Runner) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read = PictureReader(runner.cfg)
        self.visualizer = make_visualizer(runner.cfg, runner.test_dataloader.dataset.metainfo, 'show')

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            self.places = itertools.count(get_rank(), get_world_size())  # images are dealt to the processes in turn

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        for sample, place in zip(outputs, self.places):
            image = self.read(sample.img_path)
            sides = [draw(self.visualizer, image, sample.cpu(), truth) for truth in (True, False)]
            Image.fromarray(np.hstack(sides)).save(self.folder / f'{Path(sample.img_path).name}_{place}.png')
