"""The comparison's table, learning curves, and accuracy against cost."""
import json
import statistics
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dwnet.inspect.figure import COLOURS, new_figure, save

MARKERS = 'oDs^v'
COLUMNS = ('mixer', 'parameters', 'multiply-adds', 'images/s, inference', 'images/s, training', 'top-1')


def top1_of(result: dict) -> list[float]:
    """Top-1 after the last epoch, for each seed."""
    return [run['top1'][-1] for run in result['runs']]


def show(values: list[float]) -> str:
    """Mean and spread over the seeds: the standard deviation of a sample, where there are several."""
    mean = f'{statistics.mean(values):.2f}'
    return f'{mean} ± {statistics.stdev(values):.2f}' if len(values) > 1 else mean


def three_digits(value: float) -> str:
    """As many as a measured speed has."""
    return f'{float(f"{value:.3g}"):.0f}'


def rows_of(results: dict[str, dict]) -> list[tuple[str, ...]]:
    return [(name, f"{r['parameters'] / 1e6:.2f} M", f"{r['macs'] / 1e6:.1f} M",
             *(three_digits(r['images_per_second'][mode]) for mode in ('inference', 'training')), show(top1_of(r)))
            for name, r in results.items()]


def write_report(folder: Path, settings: dict, results: dict[str, dict], mixers: list[str]) -> None:
    """Prints the table and writes ``results.json``, ``README.md``, ``curves.png`` and ``cost.png``.

    Args:
        folder: Where they go.
        settings: Size, seeds, epochs, device, date and versions.
        results: Variant → its runs, parameters, multiply-adds and speed.
        mixers: The variants that are compared; the others are ablations.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'results.json').write_text(json.dumps(dict(settings=settings, results=results), indent=1))
    side = settings['image_size']
    title = (f"Fashion-MNIST at {side}×{side}, {settings['size']} body, {settings['epochs']} epochs"
             f"{' of {:,} images'.format(settings['images']) if settings['images'] else ''}, "
             f"{settings['seeds']} seed{'s' * (settings['seeds'] > 1)}")
    rows = rows_of(results)
    lines = ['| ' + ' | '.join(COLUMNS) + ' |', '| --- ' + '| ---: ' * (len(COLUMNS) - 1) + '|',
             *('| ' + ' | '.join(row) + ' |' for row in rows)]
    spread = ('mean ± standard deviation over the seeds' if settings['seeds'] > 1 else
              'of one seed: small differences mean nothing')
    tested_in = '; inference was timed in bfloat16 and tested in float32' if settings['bf16'] else ''
    minutes = sum(run['seconds'] for r in results.values() for run in r['runs']) / 60
    (folder / 'README.md').write_text(f"""# {title}

Written by `benchmarks/mixers/run.py` on {settings['date']}: {settings['device']}, PyTorch {settings['torch']}, \
{'bfloat16' if settings['bf16'] else 'float32'}, trainings of {minutes:.0f} minutes together, \
{settings['jobs']} at a time. Top-1 on the 10,000 test images after the last epoch, {spread}. The \
speeds were measured in the same run, in turns, and are those of the implementations: the convolutions run by this \
project's operators, attention by mmpretrain's{tested_in}.

""" + '\n'.join(lines) + '\n\n![Top-1 after each epoch](curves.png)\n\n![Top-1 against cost](cost.png)\n',
                                      encoding='utf-8')
    plot_curves(results, mixers, title, folder / 'curves.png')
    plot_cost(results, mixers, title, folder / 'cost.png')
    table = Table(COLUMNS[0], title=title)
    for column in COLUMNS[1:]:
        table.add_column(column, justify='right')
    for i, row in enumerate(rows):
        table.add_row(*row, end_section=i == len(mixers) - 1)
    Console(width=120).print(table)
    print(f"table and plots: {folder / 'README.md'}")


def plot_curves(results: dict[str, dict], mixers: list[str], title: str, path: Path) -> None:
    """Top-1 after each epoch, with a band from the worst to the best seed; mixers left, ablations right."""
    figure = new_figure(11, 4.6)
    figure.suptitle(title)
    ablations = [mixers[0], *(name for name in results if name not in mixers)]
    for axes, names in zip(figure.subplots(1, 2, sharey=True), (mixers, ablations)):
        for name, colour in zip(names, COLOURS):
            top1 = np.array([run['top1'] for run in results[name]['runs']])  # (seeds, epochs)
            epochs = range(1, top1.shape[1] + 1)
            axes.plot(epochs, top1.mean(0), color=colour, marker='.', label=name + ', 7×7' * (
                names is ablations and name == mixers[0]))
            axes.fill_between(epochs, top1.min(0), top1.max(0), color=colour, alpha=.15, linewidth=0)
        axes.set(xlabel='epoch', title='mixers' if names is mixers else 'ablations')
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc='upper center', bbox_to_anchor=(.5, -.14), ncols=2)
    figure.axes[0].set_ylabel('top-1 on the test images, %')
    save(figure, path)


def plot_cost(results: dict[str, dict], mixers: list[str], title: str, path: Path) -> None:
    """Top-1 of the mixers, mean and standard deviation, against multiply-adds and against speed."""
    figure = new_figure(11, 4)
    figure.suptitle(title)
    costs = (('million multiply-adds an image', lambda r: r['macs'] / 1e6),
             ('images a second, inference', lambda r: r['images_per_second']['inference']))
    for axes, (label, cost) in zip(figure.subplots(1, 2, sharey=True), costs):
        for name, colour, marker in zip(mixers, COLOURS, MARKERS):
            values = top1_of(results[name])
            spread = statistics.stdev(values) if len(values) > 1 else None
            axes.errorbar(cost(results[name]), statistics.mean(values), yerr=spread, color=colour, marker=marker,
                          markersize=8, capsize=4, linestyle='none', label=name)
        axes.set(xlabel=label)
        axes.margins(.15, .2)
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=.2)
    figure.axes[0].set_ylabel('top-1 on the test images, %')
    figure.axes[1].legend(frameon=False, fontsize=9, loc='center left', bbox_to_anchor=(1, .5))
    save(figure, path)
