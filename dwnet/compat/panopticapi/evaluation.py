"""Panoptic quality: Kirillov et al., "Panoptic Segmentation", CVPR 2019, arXiv 1801.00868, section 4.

mmdet matches the segments and counts; here the counts are kept and become scores.
"""
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

OFFSET = 256**3  # above every segment's id
VOID = 0  # the id of pixels without a segment


@dataclass
class PQStatCat:
    """Counts of a category: the matched segments' IoUs in sum, true positives, false positives, false negatives."""
    iou: float = 0.
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: 'PQStatCat') -> 'PQStatCat':
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self


@dataclass
class PQStat:
    """Counts of all categories."""
    pq_per_cat: defaultdict[int, PQStatCat] = field(default_factory=lambda: defaultdict(PQStatCat))

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat[category]

    def __iadd__(self, other: 'PQStat') -> 'PQStat':
        for category, counts in other.pq_per_cat.items():
            self.pq_per_cat[category] += counts
        return self

    def pq_average(self, categories: Mapping[int, dict], isthing: bool | None) -> tuple[dict, dict]:
        """Mean scores and each category's.

        Args:
            categories: Id of each category → COCO's entry, whose ``'isthing'`` is 1 or 0.
            isthing: Whether things or stuff are scored; None scores both.

        Returns:
            The means, fractions of 1, of categories with a true or predicted segment: ``'pq'``, ``'sq'`` and ``'rq'``;
            ``'n'`` is the number of these categories. And id → ``'pq'``, ``'sq'`` and ``'rq'``. A category without
            segments has zeros there; without any segments the means are zeros, too.
        """
        scores, seen = {}, []
        for category, entry in categories.items():
            if isthing is not None and isthing != (entry['isthing'] == 1):
                continue
            counts = self[category]
            segments = counts.tp + .5 * counts.fp + .5 * counts.fn
            scores[category] = dict(pq=counts.iou / segments if segments else 0.,
                                    sq=counts.iou / counts.tp if counts.tp else 0.,
                                    rq=counts.tp / segments if segments else 0.)
            if segments:
                seen.append(scores[category])
        means = {key: sum(score[key] for score in seen) / max(1, len(seen)) for key in ('pq', 'sq', 'rq')}
        return {**means, 'n': len(seen)}, scores
