#!/usr/bin/env python
"""Writes the tables of configs/*/README.md from the metafiles; with --check only says whether they are current."""
import argparse
from collections.abc import Iterable
from pathlib import Path

import yaml

from dwnet.engine.exit_codes import run_command
from dwnet.errors import UserError

BEGIN, END = '<!-- zoo: written by tools/write_model_zoo.py -->', '<!-- end of zoo -->'
# Where a figure comes from → how it is shown
PROVENANCE = {
    'reported': ' (reported)',  # by the authors of the paper
    'converted': ' (converted)',  # measured here with the authors' weights
    'retrained': ' (ours)',  # trained and measured by this project
}
RECIPE = 'recipe, not trained'  # of an entry that names the config whose schedule it has


def read_index(root: Path) -> dict[Path, list[dict]]:
    """Each metafile that ``model-index.yml`` imports → its models."""
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    return {root / name: yaml.safe_load((root / name).read_text())['Models'] for name in index['Import']}


def table(models: Iterable[dict]) -> str:
    """A Markdown table of the models of a metafile."""
    models = list(models)
    metrics = list(dict.fromkeys(m for model in models for r in model.get('Results', []) for m in r['Metrics']))
    header = ['config', 'parameters', 'G multiply-adds', *metrics, 'weights']
    lines = [header, ['---', '---:', '---:', *['---:'] * len(metrics), '---']]
    for model in models:
        scores = {metric: f"{value:.1f}{PROVENANCE[result['Provenance']]}"
                  for result in model.get('Results', []) for metric, value in result['Metrics'].items()}
        meta, weights = model['Metadata'], model.get('Weights')
        lines.append([
            f"[{model['Name']}](./{Path(model['Config']).name})",
            f"{meta['Parameters'] / 1e6:.1f} M",
            f"{meta['FLOPs'] / 1e9:.3g}" if meta['FLOPs'] < 1e12 else f"{meta['FLOPs'] / 1e9:.0f}",
            *(scores.get(metric, '–') for metric in metrics),
            f"[{weights.rpartition('/')[2]}]({weights})" if weights else RECIPE if 'Recipe' in model else '–',
        ])
    return '\n'.join(f"| {' | '.join(line)} |" for line in lines)


def render(readme: str, models: Iterable[dict]) -> str:
    """The README with the table of ``models`` between its two marks.

    Raises:
        UserError: If a mark is missing.
    """
    if BEGIN not in readme or END not in readme:
        raise UserError(f'the README lacks {BEGIN} or {END}, between which the table belongs')
    before, rest = readme.split(BEGIN)
    return f'{before}{BEGIN}\n{table(models)}\n{END}{rest.split(END)[1]}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog='example: python tools/write_model_zoo.py --check')
    parser.add_argument('--check', action='store_true', help='change nothing; fail if a table is not current')
    args = parser.parse_args()
    for metafile, models in read_index(Path(__file__).parent.parent).items():
        readme = metafile.parent / 'README.md'
        text = render(readme.read_text(), models)
        if text == readme.read_text():
            print(f'{readme} is current')
        elif args.check:
            raise UserError(f'{readme} is not what {metafile} says; run tools/write_model_zoo.py')
        else:
            readme.write_text(text)
            print(f'{readme} written')


if __name__ == '__main__':
    run_command(main)
