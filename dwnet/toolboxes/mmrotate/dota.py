"""mmrotate's data sets and metric of DOTA: annotations are checked, and the score is computed in this process."""
import math
import multiprocessing.dummy
from pathlib import Path
from unittest import mock

from mmengine.registry import METRICS
from mmrotate.datasets import DOTADataset, DOTAv2Dataset, DOTAv15Dataset
from mmrotate.evaluation import DOTAMetric
from mmrotate.evaluation.functional import mean_ap
from mmrotate.evaluation.metrics import dota_metric

from dwnet.errors import UserError, some
from dwnet.registry import DATASETS


class _Checked:
    """Mixed into one of mmrotate's data sets: mistakes in annotations are named, and the order is that of names.

    mmrotate takes the order in which the file system lists the files, which differs from machine to machine.
    """

    def load_data_list(self) -> list[dict]:
        if self.ann_file:
            _check(Path(self.ann_file), self.metainfo['classes'])
        return sorted(super().load_data_list(), key=lambda info: info['img_id'])


@DATASETS.register_module()
class CheckedDOTADataset(_Checked, DOTADataset):
    """mmrotate's ``DOTADataset``, whose annotations are checked."""


@DATASETS.register_module()
class CheckedDOTAv15Dataset(_Checked, DOTAv15Dataset):
    """mmrotate's ``DOTAv15Dataset``, whose annotations are checked."""


@DATASETS.register_module()
class CheckedDOTAv2Dataset(_Checked, DOTAv2Dataset):
    """mmrotate's ``DOTAv2Dataset``, whose annotations are checked."""


def _check(folder: Path, classes: tuple[str, ...]) -> None:
    """Looks at every line of the annotations.

    Raises:
        UserError: If the folder has no annotations, or lines cannot be read.
    """
    files = sorted(folder.glob('*.txt'))
    if not files:
        raise UserError(f'{folder} has no annotation files: DOTA has a .txt for each image there')
    wrong = [f'{file}:{number} ({fault})' for file in files
             for number, line in enumerate(file.read_text(encoding='utf-8', errors='replace').splitlines(), 1)
             if (fault := _fault(line.split(), classes))]
    if wrong:
        raise UserError(f'{len(wrong)} lines of the annotations in {folder} cannot be read: {some(wrong)}; a line is '
                        'x and y of four corners, the class, and the difficulty, a whole number')


def _fault(words: list[str], classes: tuple[str, ...]) -> str:
    """What is wrong with a line's words; empty if nothing is."""
    if len(words) < 10:
        return f'{len(words)} words, not 10'
    try:
        corners = [float(word) for word in words[:8]]
        int(words[9])
    except ValueError as error:
        return str(error)
    if not all(map(math.isfinite, corners)):
        return 'corners that are not finite'
    if words[8] not in classes:
        return f'the class {words[8]!r} is not in metainfo.classes'
    return ''


@METRICS.register_module()
class InProcessDOTAMetric(DOTAMetric):
    """mmrotate's ``DOTAMetric``, which matches boxes in threads of this process; also scores each class.

    mmrotate starts four processes, which import PyTorch and all else anew for every score. Where mmcv has no compiled
    operators, these processes fail at their start, and mmrotate waits for ever, since they do not import dwnet.

    Attributes:
        of_classes: See :meth:`dwnet.toolboxes.base.Toolbox.class_scores`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.of_classes: dict[str, list] = {}

    def compute_metrics(self, results: list) -> dict:
        of_thresholds: list[list[dict]] = []

        def eval_rbbox_map(*args, **kwargs) -> tuple[float, list[dict]]:
            mean, of_classes = mean_ap.eval_rbbox_map(*args, **kwargs)
            of_thresholds.append(of_classes)
            return mean, of_classes

        with (mock.patch.object(mean_ap, 'get_context', lambda method: multiprocessing.dummy),
              mock.patch.object(dota_metric, 'eval_rbbox_map', eval_rbbox_map)):
            scores = super().compute_metrics(results)
        if of_thresholds and self.scale_ranges is None:
            objects = [of['num_gts'] for of in of_thresholds[0]]
            aps = [[float(of[i]['ap']) for of in of_thresholds] for i in range(len(objects))]
            self.of_classes = {
                'class': list(self.dataset_meta['classes']), 'objects': objects,
                'AP': [sum(ap) / len(ap) if number else math.nan for ap, number in zip(aps, objects)]}
        return scores
