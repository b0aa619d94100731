"""The scores of a test as short tables and a file."""
import json
import math
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dwnet.toolboxes import SCORE_NAMES

FEW = 10  # with fewer images or objects, chance decides the score of a class
_SHOWN = 30  # with more classes, the table has the worst alone
_WORST = 20


def report_scores(runner: Runner, metrics: dict[str, Any], of_classes: dict[str, list]) -> None:
    """Prints the scores that papers quote, and those of each class; writes all into ``<work_dir>/scores.json``.

    Args:
        runner: The Runner of the test.
        metrics: What the test returned.
        of_classes: See :meth:`dwnet.toolboxes.base.Toolbox.class_scores`.
    """
    if not is_main_process():
        return
    table = Table('metric', 'score')
    for key, name in SCORE_NAMES.items():
        if key in metrics:
            table.add_row(name, f'{metrics[key]:g}')
    Console().print(table)
    # numbers of NumPy and PyTorch, and what has one for each class
    plain = {key: value.tolist() if hasattr(value, 'tolist') else value for key, value in metrics.items()}
    if of_classes:
        _print_classes(of_classes)
        plain['classes'] = [dict(zip(of_classes, [name, *map(_or_none, values)]))
                            for name, *values in zip(*of_classes.values())]
    path = Path(runner.work_dir, 'scores.json')
    path.write_text(json.dumps(plain, indent=1))
    print(f'all scores: {path}')


def remark(part: str, number: int) -> str:
    """What there is to say about a class of which a part of the data has so many images or objects."""
    return f'none in {part}' if not number else f'few in {part}' if number < FEW else ''


def _print_classes(of_classes: dict[str, list]) -> None:
    rows = list(zip(*of_classes.values()))
    table = Table(*of_classes, '')
    for column in table.columns[1:-1]:
        column.justify = 'right'
    if len(rows) > _SHOWN:
        table.title = f'the worst {_WORST} of {len(rows)} classes'
        rows = sorted(rows, key=lambda row: row[2] if row[1] else math.inf)[:_WORST]
    for name, number, *scores in rows:
        table.add_row(escape(str(name)), str(number), *map(_as_text, scores), remark('test', number))
    Console().print(table)


def _as_text(score: float) -> str:
    return '–' if math.isnan(score) else f'{score:.4g}'


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON knows no NaN
