"""The scores of a test as a short table and a file."""
import json
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

# Metric of a toolbox → the name in papers, in the order in which they are shown.
NAMES = {
    'accuracy/top1': 'top-1',
    'accuracy/top5': 'top-5',
    'coco/bbox_mAP': 'box AP',
    'coco/segm_mAP': 'mask AP',
    'mIoU': 'mIoU',
}


def report_scores(runner: Runner, metrics: dict[str, Any]) -> None:
    """Prints the scores that papers quote and writes all into ``<work_dir>/scores.json``."""
    if not is_main_process():
        return
    table = Table('metric', 'score')
    for key, name in NAMES.items():
        if key in metrics:
            table.add_row(name, f'{metrics[key]:g}')
    Console().print(table)
    path = Path(runner.work_dir, 'scores.json')
    # numbers of NumPy and PyTorch, and what has one for each class
    plain = {key: value.tolist() if hasattr(value, 'tolist') else value for key, value in metrics.items()}
    path.write_text(json.dumps(plain, indent=1))
    print(f'all scores: {path}')
