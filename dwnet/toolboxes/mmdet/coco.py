"""mmdet's reader, data set and metric of COCO; broken annotations are logged and left out."""
import contextlib
from collections.abc import Collection, Iterator

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmengine.fileio import get_local_path
from mmengine.registry import METRICS

from dwnet.data.checks import CocoFile, examine_coco
from dwnet.data.coco import read_coco
from dwnet.errors import UserError
from dwnet.registry import DATASETS

_COLUMNS = dict(bbox='box AP', segm='mask AP')


class CheckedCOCO(COCO):
    """mmdet's reader on the entries that :func:`read_coco` keeps."""

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        self.dataset = read_coco(annotation_file)
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's ``CocoDataset``; broken images and annotations are logged and left out."""
    COCOAPI = CheckedCOCO

    def filter_data(self) -> list[dict]:
        kept = super().filter_data()
        if not kept:
            raise UserError(f'{self.ann_file} leaves no image that is large enough and has an object of a class of the '
                            'config')
        return kept


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

    def compute_metrics(self, results: list) -> dict[str, float]:
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
        objects = [len(self._coco_api.get_ann_ids(self.img_ids, [i], iscrowd=False)) for i in self.cat_ids]
        self.of_classes = {'class': names, 'objects': objects, **columns} if columns else {}
        return metrics


@contextlib.contextmanager
def watch() -> Iterator[list[CocoFile]]:
    """Within the context, each COCO file that a data set reads is examined, and the result is added to the list.

    mmdet keeps no record of what a data set leaves out. The data sets read through their class attribute ``COCOAPI``,
    so no file is read twice.
    """
    files: list[CocoFile] = []
    api = CheckedCocoDataset.COCOAPI

    class Watched(api):

        def __init__(self, annotation_file: str) -> None:
            self.file = annotation_file
            super().__init__(annotation_file)

        def get_cat_ids(self, cat_names: Collection[str] = (), *args, **kwargs) -> list[int]:
            files.append(examine_coco(self.file, self.dataset, cat_names))
            return super().get_cat_ids(list(cat_names), *args, **kwargs)

    CheckedCocoDataset.COCOAPI = Watched
    try:
        yield files
    finally:
        CheckedCocoDataset.COCOAPI = api
