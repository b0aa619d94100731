"""``python -m dwnet doctor`` runs where nothing else does."""
import sys

import pytest
from conftest import ROOT, run_python

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
    done = run_python('-m', 'dwnet', 'doctor', check=False, PYTHONPATH=f'{tmp_path}:{ROOT}')
    assert done.returncode == 1 and expected in done.stdout, done.stdout + done.stderr
    if hidden != ['mmdet']:
        broken = run_python('-c', 'import dwnet', check=False, PYTHONPATH=f'{tmp_path}:{ROOT}')
        assert '`python -m dwnet doctor` says what is missing' in broken.stderr


def test_a_whole_machine():
    done = run_python('-m', 'dwnet', 'doctor', check=False)
    said = ' '.join(done.stdout.split())
    for words in ('classification ready (mmpretrain 1.', 'detection ready (mmdet 3.', 'segmentation ready (mmseg 1.',
                  'mmcv operators', 'start-up hook'):
        assert words in said


def test_a_timm_that_runs_code(monkeypatch):
    from dwnet.commands import doctor
    from dwnet.toolboxes import timm_registration
    monkeypatch.setattr(timm_registration, 'TIMM', '99.0')
    finding, = (f for f in doctor.examine() if f.subject == 'timm' and f.remedy)
    assert 'not registered' in finding.state and finding.remedy == "pip install 'timm>=99.0'"


@pytest.mark.parametrize('windowed, headless, last, mended', [
    ('4.14.0.94', '4.14.0.94', True, True), ('4.14.0.94', '4.14.0.94', False, False),
    ('4.14.0.94', '4.11.0.86', True, False), ('4.14.0.94', None, False, None), (None, '4.14.0.94', True, None)])
def test_two_opencvs(monkeypatch, tmp_path, windowed, headless, last, mended):
    """Both write into cv2/; the one that was installed last tells by ``cv2/version.py`` which it is."""
    from dwnet.commands import doctor
    installed = {'opencv-python': windowed, 'opencv-python-headless': headless}
    monkeypatch.setattr(doctor, '_version', installed.get)
    (tmp_path / 'cv2').mkdir()
    (tmp_path / 'cv2/__init__.py').touch()
    (tmp_path / 'cv2/version.py').write_text(f'opencv_version = "4.14.0.94"\nheadless = {last}\n')
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'cv2', raising=False)
    found = doctor._opencv()
    if mended is None:
        assert found is None
    else:
        assert all(f'{name} {version}' in found.state for name, version in installed.items())
        assert ('opencv-python-headless==4.14.0.94' in found.remedy) == (not mended)


@pytest.mark.parametrize('library', ['libxcb.so.1', *(
    pytest.param(name, marks=pytest.mark.long) for name in ('libGL.so.1', 'libgthread-2.0.so.0'))])
def test_opencv_on_a_bare_machine(tmp_path, library):
    """The error itself names the remedy, in its one line."""
    (tmp_path / 'cv2.py').write_text(f'raise ImportError("{library}: cannot open shared object file: No such file")')
    broken = run_python('-c', 'import dwnet', check=False, PYTHONPATH=f'{tmp_path}:{ROOT}')
    assert (f'ImportError: dwnet cannot be imported: {library}: cannot open shared object file: No such file; '
            "pip install --force-reinstall --no-deps 'opencv-python-headless<5'") in broken.stderr.splitlines()[-1]
    done = run_python('-m', 'dwnet', 'doctor', check=False, PYTHONPATH=f'{tmp_path}:{ROOT}')
    assert "pip install --force-reinstall --no-deps 'opencv-python-headless<5'" in ' '.join(done.stdout.split())
