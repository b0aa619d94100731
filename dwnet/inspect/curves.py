"""Training curves from mmengine's logs, for one or several runs of any task."""
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dwnet.errors import UserError
from dwnet.toolboxes import SCORE_NAMES

from .figure import COLOURS, new_figure, verbatim

Curve = dict[int, float]  # step → value


@dataclass
class Run:
    """The log of a training, with resumed parts joined.

    Attributes:
        name: Name for the legend.
        training: Key → values at iterations.
        validation: Key → values at epochs, or at iterations if the training has no epochs.
        by_epoch: Whether the training has epochs.
        steps_an_epoch: The most iterations an epoch that the log proves: the log may lack an epoch's last iterations.
            0 without epochs.
    """
    name: str
    training: dict[str, Curve] = field(default_factory=dict)
    validation: dict[str, Curve] = field(default_factory=dict)
    by_epoch: bool = False
    steps_an_epoch: int = 0

    @property
    def validation_loss(self) -> Curve:
        """The loss on the validation set, at the training's iterations."""
        steps = self.steps_an_epoch if self.by_epoch else 1
        return {at * steps: loss for at, loss in self.validation.get('val/loss', {}).items()}


def read_run(path: str | Path, name: str = '') -> Run:
    """Reads the log of a run. If a resume repeated steps, the later values replace the earlier ones.

    Args:
        path: A work dir, a folder in the work dir that is named by the time, or a ``scalars.json``.
        name: Name of the run; by default the folder's name.

    Raises:
        UserError: If there is no log, or the file holds something else.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted({*path.glob('*/vis_data/scalars.json'),
                                                  *path.glob('vis_data/scalars.json')})
    run = Run(name or (path.stem if path.is_file() else path.resolve().name))
    for file in files:
        records = _read_records(file)
        if not records:
            continue
        training = [r for r in records if _is_training(r)]
        if training:  # this part repeats the steps from here on
            run.by_epoch |= 'epoch' in training[0]
            _drop_from(run.training, training[0]['step'])
            _drop_from(run.validation, training[0]['epoch'] if run.by_epoch else training[0]['step'])
        for record in records:
            curves = run.training if _is_training(record) else run.validation
            if 'epoch' in record and curves is run.training:
                run.steps_an_epoch = max(run.steps_an_epoch, -(-record['step'] // record['epoch']))
            for key, value in record.items():
                if isinstance(value, (int, float)) and key not in ('step', 'iter', 'epoch'):
                    curves.setdefault(key, {})[record['step']] = value
    if not run.training and not run.validation:
        raise UserError(f'{path} holds no log of a training; name a work dir or a scalars.json')
    return run


def _read_records(file: Path) -> list[dict]:
    records = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
            if not isinstance(record['step'], int):
                raise TypeError
        except (ValueError, TypeError, KeyError):
            if line.startswith('{') and not line.endswith('}'):  # the process died while writing
                continue
            raise UserError(f'{file} is no log of a training: line {number} is {line[:80]!r}') from None
        records.append(record)
    return records


def _is_training(record: dict) -> bool:
    return any(key in record for key in ('iter', 'lr', 'loss'))


def _drop_from(curves: dict[str, Curve], step: int) -> None:
    for key, curve in curves.items():
        curves[key] = {at: value for at, value in curve.items() if at < step}


def read_curve(folder: Path, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a key, from the training or else the validation; empty if the key was not logged."""
    run = read_run(folder)
    curve = run.training.get(key) or run.validation.get(key, {})
    return list(curve), list(curve.values())


def plot(runs: Sequence[Run], keys: Sequence[str] = ()) -> Figure:
    """Draws a panel each for loss, learning rate, scores and time of the runs.

    Args:
        runs: From :func:`read_run`.
        keys: Keys of the logs to draw instead.

    Raises:
        UserError: If no log has a key.
    """
    known = sorted({key for run in runs for key in (*run.training, *run.validation)})
    if missing := [key for key in keys if key not in known]:
        raise UserError(f"no log has {', '.join(missing)}; they have {', '.join(known)}")
    scores = [score for score in SCORE_NAMES if score != 'accuracy/top5']
    panels = list(keys) or ['loss', 'lr', *(score for score in scores if score in known), 'time']
    panels = [key for key in panels if key in known] or known
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(4.2 * columns, 3 * rows + .3)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, key in zip(places, panels):
        _panel(axes, runs, key)
    for axes in places[len(panels):]:
        axes.axis('off')
    if len(runs) > 1:
        figure.legend(*places[0].get_legend_handles_labels(), loc='outside upper center', ncols=min(len(runs), 4))
    else:
        figure.suptitle(verbatim(runs[0].name))
    return figure


def _panel(axes, runs: Sequence[Run], key: str) -> None:
    validated = not any(key in run.training for run in runs)  # both log the time; the training's is drawn
    for i, run in enumerate(runs):
        curve = (run.validation if validated else run.training).get(key, {})
        style = dict(marker='o', markersize=3) if validated or len(curve) < 3 else {}
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(list(curve), list(curve.values()), color=colour, label=verbatim(run.name), linewidth=1.3, **style)
        if key == 'loss' and (validation := run.validation_loss):
            axes.plot(list(validation), list(validation.values()), '--o', color=colour, linewidth=1.3, markersize=3)
        if key == 'time' and (waiting := run.training.get('data_time')):
            axes.fill_between(list(waiting), list(waiting.values()), color=colour, alpha=.35, linewidth=0)
    by_epoch = validated and any(run.by_epoch for run in runs)
    losses = 'loss (dashed: on the validation set)' if any(run.validation_loss for run in runs) else 'training loss'
    titles = dict(loss=losses, lr='learning rate', time='time of an iteration (filled: waiting for data)')
    axes.set_title(SCORE_NAMES.get(key) or titles.get(key, verbatim(key)), fontsize=10)
    axes.set_xlabel('epoch' if by_epoch else 'iteration')
    axes.set_ylabel({'time': 's', 'data_time': 's', 'mIoU': '%', 'accuracy/top1': '%'}.get(key, ''))
    if key in ('loss', 'lr', 'time'):
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])  # room for the highest marker
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if validated:
        axes.set_xlim(left=0)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=.25)
