"""mmpretrain and mmaction beside a transformers that is newer than their multimodal models."""
import os

import pytest
from conftest import ROOT, run_python


@pytest.mark.parametrize('toolbox, kept, left_out', [
    ('mmpretrain', 'ImageClassifier', 'BlipCaption'), ('mmaction', 'Recognizer2D', 'VindLUVQA')])
@pytest.mark.parametrize('version', ['4.56.0', pytest.param('5.24.0', marks=pytest.mark.long)])
def test_a_toolbox_can_be_imported(tmp_path, toolbox, kept, left_out, version):
    """Beside a package of the name and version of transformers that lacks what the models take from it."""
    pytest.importorskip(toolbox, reason=f'waits for {toolbox}')
    info = tmp_path / f'transformers-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n')
    (tmp_path / 'transformers').mkdir()
    (tmp_path / 'transformers/__init__.py').write_text('')
    code = f'import dwnet, {toolbox}.models as m; print(m.{kept}.__name__, hasattr(m, "{left_out}"))'
    done = run_python('-c', code, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.stdout.split()[-2:] == [kept, 'False']
