"""``python -m dwnet doctor`` runs where nothing else does."""
import pytest
from conftest import run_python

HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


@pytest.mark.parametrize('hidden, expected', [
    (['mmdet'], 'mmdet is not installed'), (['mmcv'], 'pip install mmcv-lite==2.1.0'),
    (['torch'], 'pip install torch torchvision')])
def test_what_is_missing_is_named_with_its_remedy(tmp_path, hidden, expected):
    # sitecustomize is imported at start, so the packages are missing from the first line on
    (tmp_path / 'sitecustomize.py').write_text(HIDE.format(hidden=hidden))
    from conftest import ROOT
    done = run_python('-m', 'dwnet', 'doctor', check=False, PYTHONPATH=f'{tmp_path}:{ROOT}')
    assert done.returncode == 1 and expected in done.stdout, done.stdout + done.stderr
    if hidden != ['mmdet']:
        broken = run_python('-c', 'import dwnet', check=False, PYTHONPATH=f'{tmp_path}:{ROOT}')
        assert '`python -m dwnet doctor` says what is missing' in broken.stderr


def test_a_whole_machine():
    done = run_python('-m', 'dwnet', 'doctor', check=False)
    said = ' '.join(done.stdout.split())
    for words in ('classification ready (mmpretrain)', 'detection ready (mmdet)', 'segmentation ready (mmseg)',
                  'mmcv operators', 'start-up hook'):
        assert words in said


def test_a_timm_that_runs_code(monkeypatch):
    from dwnet import compat, doctor
    monkeypatch.setattr(compat, 'TIMM', '99.0')
    finding, = (f for f in doctor.examine() if f.subject == 'timm' and f.remedy)
    assert 'not registered' in finding.state and finding.remedy == "pip install 'timm>=99.0'"
