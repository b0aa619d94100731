"""mmpretrain beside a transformers that is newer than its multimodal models."""
import os

from conftest import ROOT, run_python


def test_mmpretrain_can_be_imported(tmp_path):
    """Beside a package of the name and version of transformers that lacks what BLIP takes from it."""
    info = tmp_path / 'transformers-5.24.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: transformers\nVersion: 5.24.0\n')
    (tmp_path / 'transformers').mkdir()
    (tmp_path / 'transformers/__init__.py').write_text('')
    code = 'import dwnet, mmpretrain.models as m; print(m.ImageClassifier.__name__, hasattr(m, "BlipCaption"))'
    done = run_python('-c', code, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.stdout.split()[-2:] == ['ImageClassifier', 'False']
