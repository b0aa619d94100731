"""Writes the demo's page: scores, loss curves, and predictions beside the ground truth, for all tasks."""
import html
from pathlib import Path

from mmengine.config import Config
from PIL import Image

from dwnet.config_names import config_path
from dwnet.inspect.curves import read_curve
from dwnet.inspect.page import STYLE, embed
from dwnet.inspect.report import draw_predictions, plot_curves
from dwnet.toolboxes import SCORE_NAMES

from .tasks import TASKS


def _plot_losses(work_dir: Path, results: dict[str, dict]) -> Image.Image:
    return plot_curves({f'{name}: training loss': ('iteration', read_curve(work_dir / name, 'loss'))
                        for name in results})


def write_report(work_dir: Path, results: dict[str, dict], number: int = 8) -> Path:
    """Writes ``report.html`` and its pictures into ``work_dir``.

    Args:
        work_dir: The demo's folder, with a folder for each task.
        results: Task → result, see :func:`dwnet.demo.three_tasks.run_task`.
        number: Pictures a task.

    Returns:
        The path of the report.
    """
    rows, pictures = [], []
    for task in TASKS:
        result = results[task.name]
        for key in task.scores:
            rows.append(f'<tr><td>{task.name}<td>{SCORE_NAMES[key]}<td class=number>{result["scores"][key]:g}'
                        f'<td class=number>{result["seconds"]:.0f}')
        picture = draw_predictions(Config.fromfile(config_path(task.config)), Path(result['checkpoint']), number)
        picture.save(work_dir / f'{task.name}.png')
        pictures.append(f'<h2>{task.name.capitalize()}</h2><p class=hint>Above the truth, below the '
                        f'prediction, on test images. {html.escape(task.config)}</p>{embed(picture)}')
    path = work_dir / 'report.html'
    path.write_text(f"""<!doctype html><meta charset=utf-8><title>DWNet demo</title>
<style>{STYLE}</style><h1>DWNet: three tasks, one backbone</h1>
<p>DWNet-nano on handwritten digits over photographs. Detection and segmentation start from the
classification weights. Scores are those of the toolboxes' own metrics on the test set, whose digits
occur nowhere in training.</p>
<table><tr><th>task<th>metric<th>score<th>seconds{''.join(rows)}</table>
<h2>Training</h2>{embed(_plot_losses(work_dir, results))}{''.join(pictures)}
""", encoding='utf-8')
    return path
