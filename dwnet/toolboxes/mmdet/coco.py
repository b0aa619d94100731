"""mmdet's reader, data set and metric of COCO; annotations are mended or left out, and labels follow the names."""
import logging
from collections.abc import Collection, Sequence

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmengine.fileio import get_local_path
from mmengine.logging import print_log
from mmengine.registry import METRICS

from dwnet.data import orientation
from dwnet.data.checks import examine_coco
from dwnet.data.coco_file import read_coco, with_classes
from dwnet.data.orientation import BACK, Annotated
from dwnet.errors import UserError
from dwnet.registry import DATASETS

_COLUMNS = dict(bbox='box AP', segm='mask AP')


class CheckedCOCO(COCO):
    """mmdet's reader on what :func:`read_coco` gives."""

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        self.path = annotation_file
        self.dataset = read_coco(annotation_file)
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(self, cat_names: Collection[str] = (), *args, **kwargs) -> list[int | str]:
        """The ids of the names, in the order of the names.

        The i-th id becomes label i, so a label means the same class in each file. In mmdet the order is that of the
        file. A class that the file lacks gets an id without annotations.
        """
        if not cat_names:
            return super().get_cat_ids(cat_names, *args, **kwargs)
        self.dataset = with_classes(self.dataset, cat_names)
        self.cats = {category['id']: category for category in self.dataset['categories']}
        ids = {category['name']: category['id'] for category in self.dataset['categories']}
        return [ids[name] for name in cat_names]

    def loadCats(self, ids: Collection[int | str] | int | str = ()) -> list[dict]:
        return super().loadCats([ids] if isinstance(ids, str) else ids)  # theirs takes text for a list of letters


class ExaminedCOCO(CheckedCOCO):
    """Also compares the file with the classes of the data set: logs a warning, or raises a ``UserError``."""

    def get_cat_ids(self, cat_names: Collection[str] = (), *args, **kwargs) -> list[int | str]:
        for finding in examine_coco(self.path, self.dataset, cat_names):
            if finding.stops:
                raise UserError(finding.message)
            print_log(finding.message, logger='current', level=logging.WARNING)
        return super().get_cat_ids(cat_names, *args, **kwargs)


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset``; broken images and annotations are logged and left out.

    If an annotation is of a photograph's pixels before EXIF turns them, the annotation is turned, too.
    """
    COCOAPI = ExaminedCOCO

    def filter_data(self) -> list[dict]:
        kept = super().filter_data()
        if not kept:
            raise UserError(f'{self.ann_file} leaves no image that is large enough and has an object of a class of the '
                            'config')
        return kept

    def prepare_data(self, idx: int) -> dict | None:
        return self.pipeline(upright(self.get_data_info(idx)))


def upright(info: dict) -> dict:
    """A data set's entry as annotations of the image as it is read."""
    turn, annotated = orientation.compare(info['img_path'], info['width'], info['height'])
    if annotated is not Annotated.UNTURNED:
        return info
    size = info['width'], info['height']
    for instance in info['instances']:
        instance['bbox'] = orientation.turn_boxes(np.array([instance['bbox']]), turn, *size)[0].tolist()
        if 'mask' in instance:
            instance['mask'] = orientation.turn_segmentation(instance['mask'], turn, *size)
    return {**info, 'width': size[1], 'height': size[0]}


@METRICS.register_module()
class CheckedCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric`` on the same annotations as :class:`CheckedCocoDataset`; also scores each class.

    Attributes:
        of_classes: See :meth:`dwnet.toolboxes.base.Toolbox.class_scores`. The scores are those of ``classwise=True``.
    """

    def __init__(self, ann_file: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.of_classes: dict[str, list] = {}
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=self.backend_args) as path:
                self._coco_api = CheckedCOCO(path)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        super().process(data_batch, [self._as_annotated(sample) for sample in data_samples])

    def _as_annotated(self, sample: dict) -> dict:
        """Predictions on the pixels of which the annotation file has the truth."""
        truth = self._coco_api and self._coco_api.imgs.get(sample['img_id'])
        if not truth or 'img_path' not in sample:
            return sample
        turn, annotated = orientation.compare(sample['img_path'], truth['width'], truth['height'])
        if annotated is not Annotated.UNTURNED:
            return sample
        found, (height, width) = dict(sample['pred_instances']), sample['ori_shape']
        found['bboxes'] = torch.from_numpy(
            orientation.turn_boxes(found['bboxes'].cpu().numpy(), BACK[turn], width, height))
        if 'masks' in found:
            masks = found['masks']
            found['masks'] = (
                torch.from_numpy(orientation.turn_pixels(masks.cpu().numpy(), BACK[turn]).copy())
                if isinstance(masks, torch.Tensor) else
                [orientation.turn_segmentation(mask, BACK[turn], width, height) for mask in masks])
        return {**sample, 'pred_instances': found, 'ori_shape': (width, height)}

    def compute_metrics(self, results: list) -> dict[str, float]:
        # of one of several roots, or without damaged images; mmdet would count objects of all images of the file
        self.img_ids = [truth['img_id'] for truth, _ in results]
        if self._coco_api is not None:  # COCO's evaluation sorts the ids, and mmdet names its scores by their places
            self.cat_ids = sorted(self._ids_of_labels())
        if self.format_only or self._coco_api and not self._coco_api.get_cat_ids(self.dataset_meta['classes']):
            return super().compute_metrics(results)
        kinds, classwise = self.metrics, self.classwise
        metrics: dict[str, float] = {}
        columns: dict[str, list] = {}
        try:
            self.classwise = True
            for kind in kinds:  # one at a time, since mmdet gives the scores of boxes and of masks the same names
                self.metrics = [kind]
                of_kind = super().compute_metrics(results)
                names = [category['name'] for category in self._coco_api.loadCats(self.cat_ids)]
                keys = [f'{name}_precision' for name in names]
                if keys[0] in of_kind:
                    columns[_COLUMNS[kind]] = [float(of_kind[key]) for key in keys]
                metrics |= {key: score for key, score in of_kind.items() if classwise or key not in keys}
        finally:
            self.metrics, self.classwise = kinds, classwise
        order = [self.cat_ids.index(i) for i in self._ids_of_labels()]
        objects = [len(self._coco_api.get_ann_ids(self.img_ids, [i], iscrowd=False)) for i in self.cat_ids]
        columns = {'class': names, 'objects': objects, **columns} if columns else {}
        self.of_classes = {name: [column[i] for i in order] for name, column in columns.items()}
        return metrics

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict[str, str]:
        in_order, self.cat_ids = self.cat_ids, self._ids_of_labels()
        try:
            return super().results2json(results, outfile_prefix)
        finally:
            self.cat_ids = in_order

    def _ids_of_labels(self) -> list[int | str]:
        return self._coco_api.get_cat_ids(cat_names=self.dataset_meta['classes'])
