"""The demo's page: scores, loss curves, and predictions beside the ground truth, for all tasks."""
from pathlib import Path

from mmengine.config import Config

from dwnet.config_names import config_path
from dwnet.inspect.curves import read_run
from dwnet.inspect.page import Table, write_page
from dwnet.inspect.report import draw_predictions, plot_curves
from dwnet.toolboxes import SCORE_NAMES

from .tasks import TASKS


def write_report(work_dir: Path, results: dict[str, dict], number: int = 8) -> Path:
    """Writes ``report.html`` and its pictures into ``work_dir``.

    Args:
        work_dir: The demo's folder, with a folder for each task.
        results: Task → result, see :func:`dwnet.demo.three_tasks.run_task`.
        number: Pictures a task.

    Returns:
        The path of the report.
    """
    losses = {f'{name}: training loss': ('iteration', {'': read_run(work_dir / name).training.get('loss', {})})
              for name in results}
    rows, pictures = [], [('Training', '', plot_curves(losses))]
    for task in TASKS:
        result = results[task.name]
        rows += [(task.name, SCORE_NAMES[key], result['scores'][key], round(result['seconds'])) for key in task.scores]
        picture = draw_predictions(Config.fromfile(config_path(task.config)), Path(result['checkpoint']), number)
        picture.save(work_dir / f'{task.name}.png')
        pictures.append((task.name.capitalize(),
                         f'Above the truth, below the prediction, on test images. {task.config}', picture))
    return write_page(
        work_dir / 'report.html', 'DWNet: three tasks, one backbone',
        'DWNet-nano on handwritten digits over photographs. Detection and segmentation start from the classification '
        "weights. Scores are those of the toolboxes' own metrics on the test set, whose digits occur nowhere in "
        'training.', [('', '', Table(('task', 'metric', 'score', 'seconds'), rows)), *pictures])
