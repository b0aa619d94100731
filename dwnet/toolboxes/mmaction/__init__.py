"""What mmaction answers: recognition of actions in videos, by backbones that see one frame at a time.

==============  ==================================================
``one_map``     gives the heads DWNet's map, which comes in a tuple
``videos``      finds missing frames before a training
``inferencer``  reads videos by OpenCV
==============  ==================================================
"""
import importlib
from functools import partial
from typing import Any

from mmengine.config import Config
from torch import nn

from dwnet.compat.around_import import after_import
from dwnet.errors import UserError

from ..base import Toolbox, inferencer_around


class MMAction(Toolbox):
    """mmaction, which PyPI has as mmaction2."""
    name = 'mmaction'
    distribution = 'mmaction2'
    extra = 'action'
    no_deps = 'mmaction2>=1.2.0,<2'
    task = 'video'
    trial_size = 224
    trial_number = 16  # TSM's backbones take frames by the clip: 8 or 16
    takes_videos = True
    scores = {'acc/top1': 'top-1 of clips', 'acc/top5': 'top-5 of clips', 'acc/mean1': 'mean of the classes'}
    main_scores = {'mmaction.AccMetric': (
        'metric_list', {'top_k_accuracy': 'acc/top1', 'mean_class_accuracy': 'acc/mean1',
                        'mean_average_precision': 'acc/mean_average_precision'})}
    preprocessor_type = 'mmaction.ActionDataPreprocessor'
    layer_decay = 'mmaction.TSMOptimWrapperConstructor'
    checked_datasets = {'mmaction.RawframeDataset': 'dwnet.CheckedRawframeDataset'}

    def when_imported(self) -> None:
        for theirs, ours in (('datasets', 'videos'), ('models.recognizers.recognizer2d', 'one_map')):
            after_import(f'mmaction.{theirs}', partial(importlib.import_module, f'{__name__}.{ours}'))

    def save_pictures(self, cfg: Config, folder: str) -> None:
        raise UserError('--show-dir: mmaction draws the clips of 3D recognizers alone; leave it out')

    def inferencer(self, model: nn.Module) -> Any:
        from .inferencer import VideoInferencer
        return inferencer_around(VideoInferencer, model)
