"""Pictures of a checkpoint's errors on the test data of a config; the task decides which pictures are drawn."""
import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from PIL import Image
from pycocotools.coco import COCO

from dwnet.data.coco_file import read_coco, with_classes
from dwnet.engine import Runner
from dwnet.engine.fonts import drawable
from dwnet.errors import UserError
from dwnet.inspect import coco_errors, confusion, precision_recall
from dwnet.inspect.figure import contact_sheet, save
from dwnet.inspect.page import Table, write_page
from dwnet.inspect.samples import MAX_SIDE, MIN_SIDE, PictureReader, draw, make_visualizer
from dwnet.registry import lineage
from dwnet.toolboxes import SCORE_NAMES, known_toolbox_of, toolbox_of

Picture = tuple[str, str, Path]  # headline, explanation, file


class CollectHook(Hook):
    """Passes each predicted sample of a test to ``collect``; ``begin`` comes first, again if the test begins again."""

    def __init__(self, begin: Callable[[Any], None], collect: Callable[[Any], None]) -> None:
        self._begin, self._collect = begin, collect

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if batch_idx == 0:
            self._begin(runner.test_dataloader.dataset)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        for sample in outputs:
            self._collect(sample.cpu())


def analyze(cfg: Config, out: Path, number: int = 12, threshold: float = .3) -> Path:
    """Tests the checkpoint of ``cfg.load_from`` and writes pictures and a page with all of them.

    Args:
        cfg: A config of mmpretrain, mmdet or mmseg; the config is not changed.
        out: The output folder, which is made.
        number: Number of images on the page.
        threshold: Detections of a lower score are not drawn, and do not count in the confusion matrix.

    Returns:
        The path of the page.

    Raises:
        UserError: If the config is of another toolbox, the data lack the annotations or have other classes than the
            model, or ``number`` is below 1.
    """
    if number < 1:
        raise UserError(f'number {number}: it has to be 1 or more')
    toolbox = known_toolbox_of(cfg, 'analyze')
    pictures_of = dict(classification=_Classes, detection=_Objects, segmentation=_Segments)
    if toolbox.task not in pictures_of:
        raise UserError(f'analyze has no pictures of the errors of {toolbox.name}: see its predictions by '
                        'test --show-dir')
    cfg = copy.deepcopy(cfg)
    out.mkdir(parents=True, exist_ok=True)
    task = pictures_of[toolbox.task](cfg, out, number, threshold)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(CollectHook(task.begin, task.collect))
    task.begin(runner.test_dataloader.dataset)  # now, too: a mistake ends the test before it begins
    scores = runner.test()
    pictures = task.finish()
    hint = f"{cfg.load_from}, {len(runner.test_dataloader.dataset)} test images of {runner.experiment_name}"
    rows = [(name, scores[key]) for key, name in SCORE_NAMES.items() if key in scores]
    return write_page(out / 'analysis.html', Path(str(cfg.load_from)).name, hint,
                      [('', '', Table(('metric', 'score'), rows)), *pictures])


class _Task:
    """Collects samples during a test, and draws pictures at the end."""

    def __init__(self, cfg: Config, out: Path, number: int, threshold: float) -> None:
        self.cfg, self.out, self.number, self.threshold = cfg, out, number, threshold
        self.read = PictureReader(cfg)

    def begin(self, dataset: Any) -> None:
        if not len(dataset):
            raise UserError('the test data are empty')
        self._pairs: list[tuple[str, np.ndarray]] = []
        self._seen = 0
        self.classes = list(dataset.metainfo.get('classes') or ())
        self.names = drawable(self.classes)
        self.visualizer = make_visualizer(self.cfg, dataset.metainfo, 'analyze')
        # spread evenly over the set
        self._shown = set(np.linspace(0, len(dataset) - 1, min(self.number, len(dataset))).round().astype(int).tolist())

    def collect(self, sample: Any) -> None:
        if self._seen in self._shown:
            image = self.read(sample.img_path)
            pair = [draw(self.visualizer, image, sample, truth, self.threshold) for truth in (True, False)]
            gap = np.full((pair[0].shape[0], 6, 3), 255, np.uint8)
            self._pairs.append((Path(sample.img_path).name, np.hstack([pair[0], gap, pair[1]])))
        self._seen += 1
        self.count(sample)

    def count(self, sample: Any) -> None:
        raise NotImplementedError

    def pairs(self) -> Picture:
        names, pictures = zip(*self._pairs)
        sheet = contact_sheet(pictures, names, columns=3, side=4, title='truth (left) and prediction (right)')
        path = save(sheet, self.out / 'predictions.png')
        return 'Predictions beside the truth', 'Images evenly over the test set.', path


class _Classes(_Task):

    def begin(self, dataset: Any) -> None:
        precision_recall.metrics()  # a missing package ends the test before it begins
        super().begin(dataset)
        self.labels: list[int] = []
        self.scores: list[np.ndarray] = []
        self.paths: list[str] = []

    def count(self, sample: Any) -> None:
        if len(sample.gt_label) != 1:
            raise UserError(f'{sample.img_path} has {len(sample.gt_label)} labels; an image must have one label')
        label, scores = int(sample.gt_label), sample.pred_score.numpy()
        if not 0 <= label < len(scores):
            raise UserError(f'{sample.img_path} is of class {label}, and the model has {len(scores)}, 0 to '
                            f'{len(scores) - 1}; take the config that it was trained with')
        if not np.isfinite(scores).all():
            raise UserError(f'{self.cfg.load_from} scores {sample.img_path} with values that are not finite; try an '
                            'earlier checkpoint')
        self.labels.append(label)
        self.scores.append(scores)
        self.paths.append(sample.img_path)

    def finish(self) -> list[Picture]:
        labels, scores = np.array(self.labels), np.stack(self.scores)
        classes = scores.shape[1]  # the model may have more classes than the data name
        names = [*self.names, *map(str, range(len(self.names), classes))][:classes]
        predicted = scores.argmax(1)
        matrix = confusion.count(labels, predicted, scores.shape[1])
        hits = np.diag(matrix)
        of_class = {'recall': 100 * hits / np.maximum(matrix.sum(1), 1),
                    'precision': 100 * hits / np.maximum(matrix.sum(0), 1)}
        pictures = [
            ('Confusion matrix', 'Each row shows what the images of a class were taken for.',
             save(confusion.plot(matrix, names, names, 'confusion matrix'), self.out / 'confusion.png')),
            ('Precision and recall of each class', 'Recall: of its images, how many were found. Precision: of those '
             'taken for it, how many are right.',
             save(confusion.plot_bars(of_class, names, 'recall and precision', '%'), self.out / 'classes.png')),
            ('Precision-recall curves', 'Each class against all others, over all thresholds of its score.',
             save(precision_recall.plot(labels, scores, names), self.out / 'precision_recall.png'))]
        wrong = np.flatnonzero(predicted != labels)
        if len(wrong):
            worst = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind='stable')][:self.number]
            sheet = contact_sheet(
                [_large(self.read(self.paths[i])) for i in worst],
                [f'{names[labels[i]]} taken for {names[predicted[i]]} ({scores[i, predicted[i]]:.0%})' for i in worst],
                title=f'most confident of {len(wrong)} mistakes in {len(labels)} images')
            pictures.append(('Mistakes', 'Those of the highest scores.', save(sheet, self.out / 'mistakes.png')))
        return [*pictures, self.pairs()]


class _Segments(_Task):

    def begin(self, dataset: Any) -> None:
        super().begin(dataset)
        if not self.names:
            raise UserError('the test data name no classes: set metainfo.classes in test_dataloader.dataset')
        self.matrix = np.zeros((len(self.names), ) * 2, np.int64)

    def count(self, sample: Any) -> None:
        truth, predicted = sample.gt_sem_seg.data.numpy(), sample.pred_sem_seg.data.numpy()
        self.matrix += confusion.count(truth, predicted, len(self.names))

    def finish(self) -> list[Picture]:
        of_class = {'IoU': 100 * confusion.iou(self.matrix),
                    'recall': 100 * np.diag(self.matrix) / np.maximum(self.matrix.sum(1), 1)}
        return [
            ('Confusion matrix', 'Each row shows what the pixels of a class were taken for.',
             save(confusion.plot(self.matrix, self.names, self.names, 'confusion matrix of the pixels'),
                  self.out / 'confusion.png')),
            ('Classes', 'IoU: intersection over union. Recall: of its pixels, how many were found.',
             save(confusion.plot_bars(of_class, self.names, 'IoU and recall', '%'), self.out / 'classes.png')),
            self.pairs()]


class _Objects(_Task):

    def __init__(self, cfg: Config, out: Path, number: int, threshold: float) -> None:
        super().__init__(cfg, out, number, threshold)
        metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        known = toolbox_of(cfg).main_scores.keys()
        metric = next((m for m in metrics if known & set(lineage(m, METRICS, cfg.get('default_scope')))
                       and m.get('ann_file')), None)
        if metric is None:
            raise UserError('detections are analysed as COCO does: test_evaluator needs a CocoMetric with ann_file')
        metric['outfile_prefix'] = str(out / 'detections')
        self._ann_file = metric['ann_file']
        kinds = np.atleast_1d(metric.get('metric', 'bbox')).tolist()
        self._kinds = [kind for kind in kinds if kind in ('bbox', 'segm')]

    def count(self, sample: Any) -> None:
        pass  # the metric writes the detections

    def finish(self) -> list[Picture]:
        truth = COCO()
        truth.dataset = with_classes(read_coco(self._ann_file), self.classes)
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
        pictures: list[Picture] = []
        for kind in self._kinds:
            what = dict(bbox='boxes', segm='masks')[kind]
            detections = json.loads((self.out / f'detections.{kind}.json').read_text())
            if not detections:
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                found = truth.loadRes(detections)
            pictures += self._draw(truth, found, kind, what)
        return [*pictures, self.pairs()]

    def _draw(self, truth: COCO, found: COCO, kind: str, what: str) -> list[Picture]:
        names = drawable([category['name'] for category in truth.loadCats(sorted(truth.getCatIds()))])
        evaluation = coco_errors.evaluate(truth, found, kind)
        precision = evaluation.eval['precision'][:, :, :, 0, -1]
        precision = np.where(precision < 0, np.nan, precision)
        of_class = {'AP': 100 * precision.mean((0, 1)), 'AP50': 100 * precision[0].mean(0)}
        parts = coco_errors.breakdown(truth, found, kind)
        matrix = coco_errors.confusion(truth, found, kind, self.threshold)
        return [
            (f'Precision-recall curves of {what}', 'Mean of all classes, by the overlap (IoU) that is asked for.',
             save(coco_errors.plot_curves(evaluation, f'precision and recall of {what}'),
                  self.out / f'precision_recall_{kind}.png')),
            (f'What is lost where: {what}', 'C75, C50: found, with an IoU of 0.75 or 0.5. Loc: gained if place and '
             'size mattered less (0.1). Sim, Oth: if classes of the same supercategory, or all, were one. BG: if '
             'nothing on the background counted. FN: what is missed.',
             save(coco_errors.plot_breakdown(parts, f'errors of {what}'), self.out / f'errors_{kind}.png')),
            (f'Confusion matrix of {what}', f'Detections of a score of {self.threshold:g} or more, matched by an IoU '
             'of 0.5. Last row: found on the background. Last column: missed.',
             save(confusion.plot(matrix, [*names, 'background'], [*names, 'missed'], f'confusion matrix of {what}'),
                  self.out / f'confusion_{kind}.png')),
            (f'Average precision of each class: {what}', 'AP: mean over IoUs of 0.5 to 0.95.',
             save(confusion.plot_bars(of_class, names, f'average precision of {what}', '%'),
                  self.out / f'classes_{kind}.png'))]


def _large(image: np.ndarray) -> np.ndarray:
    scale = min(MIN_SIDE / min(image.shape[:2]), MAX_SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
