"""The scores of a test as a short table and a file."""
import json
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from dwnet.toolboxes import SCORE_NAMES


def report_scores(runner: Runner, metrics: dict[str, Any]) -> None:
    """Prints the scores that papers quote and writes all into ``<work_dir>/scores.json``."""
    if not is_main_process():
        return
    table = Table('metric', 'score')
    for key, name in SCORE_NAMES.items():
        if key in metrics:
            table.add_row(name, f'{metrics[key]:g}')
    Console().print(table)
    path = Path(runner.work_dir, 'scores.json')
    # numbers of NumPy and PyTorch, and what has one for each class
    plain = {key: value.tolist() if hasattr(value, 'tolist') else value for key, value in metrics.items()}
    path.write_text(json.dumps(plain, indent=1))
    print(f'all scores: {path}')
