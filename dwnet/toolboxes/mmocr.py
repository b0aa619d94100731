"""What mmocr answers: detection of text. Its recognizers of text have backbones of other strides than DWNet's."""
from typing import Any

from mmengine.config import Config
from torch import nn

from dwnet.errors import UserError

from .base import Toolbox, inferencer_around


class MMOCR(Toolbox):
    """mmocr."""
    name = 'mmocr'
    distribution = 'mmocr'
    extra = 'ocr'
    task = 'text'
    keeps_strides = True
    image_shape = (640, 640)
    scores = {'icdar/hmean': 'h-mean', 'icdar/precision': 'precision', 'icdar/recall': 'recall'}
    main_scores = {'mmocr.HmeanIOUMetric': ('', {'hmean': 'icdar/hmean'})}
    preprocessor_type = 'mmocr.TextDetDataPreprocessor'
    checked_readers = {'mmocr.LoadImageFromFile': 'dwnet.LoadWholeImage'}

    def save_pictures(self, cfg: Config, folder: str) -> None:
        cfg.default_hooks.visualization.update(enable=True, draw_gt=True, draw_pred=True, interval=1)
        cfg.visualizer.save_dir = folder

    def slice_images(self, cfg: Config, size: int, overlap: float) -> None:
        raise UserError('--slice cuts no text: a line may be longer than a tile; leave it out')

    def inferencer(self, model: nn.Module) -> Any:
        from mmocr.apis.inferencers import TextDetInferencer
        return inferencer_around(TextDetInferencer, model)
