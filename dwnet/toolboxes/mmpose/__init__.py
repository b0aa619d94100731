"""What mmpose answers: keypoints of people, animals, hands, or anything else.

===========  ==========================================================
``checked``  COCO's keypoints, with a word on annotations that are wrong
===========  ==========================================================
"""
import inspect
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.visualization import Visualizer
from torch import nn

from dwnet.errors import UserError
from dwnet.registry import class_of, type_name

from ..base import Toolbox, inferencer_around

_WIDTH, _KERNEL = 256, 4  # of mmpose's own deconvolutions


def one_by_one(model: nn.Module, batch: dict) -> list:
    """Predicts a batch image by image, as bottom-up heads want it."""
    return [model.test_step({key: part[i:i + 1] for key, part in batch.items()})[0]
            for i in range(len(batch['data_samples']))]


class MMPose(Toolbox):
    """mmpose."""
    name = 'mmpose'
    distribution = 'mmpose'
    extra = 'pose'
    no_deps = 'mmpose>=1.3.2,<2'
    task = 'pose'
    image_shape = (256, 192)
    scores = {'coco/AP': 'keypoint AP', 'coco/AR': 'keypoint AR', 'coco-wholebody/AP': 'whole-body AP',
              'crowdpose/AP': 'keypoint AP of CrowdPose', 'PCK': 'PCK', 'PCKh': 'PCKh', 'tPCK': 'tPCK'}
    main_scores = {
        'mmpose.CocoWholeBodyMetric': ('', {'AP': 'coco-wholebody/AP'}),
        'mmpose.CocoMetric': ('iou_type', {'keypoints': 'coco/AP', 'keypoints_crowd': 'crowdpose/AP'}),
        'mmpose.MpiiPCKAccuracy': ('', {'head': 'PCKh'}),
        'mmpose.PCKAccuracy': ('norm_item', {'bbox': 'PCK', 'head': 'PCKh', 'torso': 'tPCK'})}
    layer_decay = 'mmpose.LayerDecayOptimWrapperConstructor'
    preprocessor_type = 'PoseDataPreprocessor'
    checked_datasets = {'mmpose.CocoDataset': f'{__name__}.checked.CheckedCocoDataset'}
    checked_readers = {'mmpose.LoadImage': 'dwnet.LoadWholeImage'}

    def prepare_visualizer(self, visualizer: Visualizer) -> None:
        visualizer.set_dataset_meta(visualizer.dataset_meta)  # also the skeleton and its colours
        visualizer.backend = 'matplotlib'  # mmpose's circles by OpenCV fail on NumPy 2.4

    def fit_resolution(self, model: ConfigDict, factor: float) -> None:
        """Makes up for smaller maps by deconvolutions of stride 2 in front of those that a head has."""
        if factor == 1:
            return
        steps, head = math.log2(factor), model.head
        takes = inspect.signature(class_of(head, MODELS)).parameters
        if steps < 0 or not steps.is_integer() or 'deconv_out_channels' not in takes:
            raise UserError(f"DWNet's maps are {factor:g} times smaller than those of the old backbone, and a "
                            f'{type_name(head)} has no deconvolutions to make up for that: swap the head, too')
        # a stock head of maps of stride 4 says None; one that says nothing has its class's three
        before = head.get('deconv_out_channels', takes['deconv_out_channels'].default) or ()
        kernels = head.get('deconv_kernel_sizes', takes['deconv_kernel_sizes'].default) or ()
        head.deconv_out_channels = (_WIDTH, ) * int(steps) + tuple(before)
        head.deconv_kernel_sizes = (_KERNEL, ) * int(steps) + tuple(kernels[:len(before)])

    # --- Trainings and tests -------------------------------------------------------------------------------

    def save_pictures(self, cfg: Config, folder: str) -> None:
        # mmpose's hook draws no ground truth, and its circles fail on NumPy 2.4
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='ShowHook', folder=folder)]

    def add_mirrored_view(self, cfg: Config) -> None:
        raise UserError("--tta: mmpose's models themselves average over an image and its mirror image: "
                        '--cfg-options model.test_cfg.flip_test=True')

    def slice_images(self, cfg: Config, size: int, overlap: float) -> None:
        raise UserError('--slice is for detectors and segmentors; a pose estimator predicts an image as a whole: leave '
                        'it out')

    # --- Inference -----------------------------------------------------------------------------------------

    def graph(self, model: nn.Module) -> nn.Module:
        raise UserError(f'{type(model).__name__} cannot be exported: mmpose decodes keypoints by NumPy; its '
                        'backbone alone can, by --backbone')

    def inferencer(self, model: nn.Module) -> Any:
        """mmpose's ``Pose2DInferencer``; a top-down model takes the whole image for its one box."""
        from mmpose.apis.inference import dataset_meta_from_config
        from mmpose.apis.inferencers import Pose2DInferencer

        class WholeImages(Pose2DInferencer):
            """Predicts batches; mmpose predicts one image at a time."""

            def preprocess(self, inputs: Sequence, batch_size: int = 1, **kwargs) -> Iterator[tuple[dict, list]]:
                remaining = iter(inputs)
                while images := list(islice(remaining, batch_size)):
                    samples = [sample for i, image in enumerate(images)
                               for sample in self.preprocess_single(image, i, **kwargs)]
                    yield self.collate_fn(samples), images

            def forward(self, inputs: dict, **kwargs) -> list:
                if self.cfg.data_mode == 'topdown':
                    return self.model.test_step(inputs)
                return one_by_one(self.model, inputs)

        model.dataset_meta = dataset_meta_from_config(model.cfg, 'test')
        return inferencer_around(WholeImages, model, det_model='whole_image')
