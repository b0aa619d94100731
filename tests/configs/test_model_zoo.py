"""The metafiles: every figure is what the tools compute, every path exists, the tables are current."""
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, is_recipe, read_config, run_python

from dwnet.inspect.flops import count
from dwnet.weights.names import OFFICIAL_RELEASE

INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())
MODELS = [model for name in INDEX['Import'] for model in yaml.safe_load((ROOT / name).read_text())['Models']]


def test_every_config_has_an_entry():
    assert sorted(m['Config'] for m in MODELS) == sorted(
        str(p) for p in Path('configs').glob('*/*.py') if p.parent.name != '_base_')
    assert all(m['Name'] == Path(m['Config']).stem for m in MODELS)


# counting these takes ten seconds each
TRANSFORMERS = ('dino', 'mask2former')


@pytest.mark.parametrize('model', [
    pytest.param(m, id=m['Name'], marks=[pytest.mark.long] * m['Name'].startswith(TRANSFORMERS)) for m in MODELS])
def test_sizes_are_computed(model):
    meta = model['Metadata']
    parts = count(read_config(model['Config']), tuple(meta['Image Size']))
    assert sum(part.parameters for part in parts) == meta['Parameters']
    assert sum(part.macs for part in parts) == meta['FLOPs']


def test_scores_say_where_they_come_from():
    for model in MODELS:
        results = model.get('Results', [])
        assert {r['Provenance'] for r in results} <= {'reported', 'converted', 'retrained'}
        text = Path(model['Config']).read_text()
        for result in results:
            if result['Provenance'] == 'reported':
                assert all(f'{value:.1f}' in text and 'reported by the authors' in text
                           for value in result['Metrics'].values())
                assert model['Weights'].startswith(f'{OFFICIAL_RELEASE}/')
        assert results or 'no published figure' in text
        if 'Recipe' in model:
            assert not results and 'Weights' not in model and is_recipe(model['Config']) and model['Recipe'] in text


def test_tables_are_current():
    assert run_python('tools/write_model_zoo.py', '--check').stdout.count('is current') == len(INDEX['Import'])


def test_tables_say_which_are_recipes():
    rows = [line for task in ('detection', 'segmentation')
            for line in (ROOT / f'configs/{task}/README.md').read_text().splitlines() if line.startswith('| [')]
    recipes = [model['Name'] for model in MODELS if 'Recipe' in model]
    assert len(recipes) == 31 and [row.split(']')[0][3:] for row in rows if '| recipe, not trained |' in row] == recipes


def test_a_stale_table_is_an_error(tmp_path):
    for path in ('tools/write_model_zoo.py', 'model-index.yml', *INDEX['Import'],
                 *(name.replace('metafile.yml', 'README.md') for name in INDEX['Import'])):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text().replace('Top 1 Accuracy: 81.2', 'Top 1 Accuracy: 82.2'))
    done = run_python(tmp_path / 'tools/write_model_zoo.py', '--check', check=False)
    assert done.returncode == 2 and 'run tools/write_model_zoo.py' in done.stderr
    run_python(tmp_path / 'tools/write_model_zoo.py')
    assert '| 82.2 (reported) |' in (tmp_path / 'configs/classification/README.md').read_text()
