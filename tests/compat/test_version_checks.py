"""Toolboxes that assert older releases of mmcv and mmdet start, if what they need is there."""
import mmcv
import numpy as np
import pytest
from conftest import run_python

from dwnet.compat import version_checks
from dwnet.compat.version_checks import CHECKS, Check, accepted, with_sctypes


@pytest.mark.parametrize('check', CHECKS.values(), ids=CHECKS)
def test_what_is_needed_is_there(check):
    assert not [need for need in check.needs if version_checks._missing(need)]


def test_the_version_is_the_accepted_one_only_inside():
    true = mmcv.__version__
    with pytest.raises(ZeroDivisionError), accepted(Check('mmcv', '2.0.1', ('mmcv.cnn:ConvModule', ))):
        assert mmcv.__version__ == '2.0.1'
        raise ZeroDivisionError
    assert mmcv.__version__ == true


@pytest.mark.parametrize('need', ['mmcv.cnn:Gone', 'mmcv.gone:ConvModule'])
def test_what_is_missing_keeps_the_true_version(need):
    with accepted(Check('mmcv', '2.0.1', (need, ))):
        assert mmcv.__version__ != '2.0.1'


TOOLBOX = '''
import mmcv
version = mmcv.__version__
assert version == '2.0.1', version
'''


def test_a_toolbox_starts(tmp_path):
    (tmp_path / 'mmyolo').mkdir()
    (tmp_path / 'mmyolo/__init__.py').write_text(TOOLBOX)
    (tmp_path / 'mmyolo/models.py').write_text('')
    code = (f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import dwnet, mmyolo.models, mmcv; '
            'assert mmyolo.version == "2.0.1" != mmcv.__version__')
    run_python('-c', code)


def test_the_table_of_old_numpy_is_there_only_inside():
    before = hasattr(np, 'sctypes')
    with pytest.raises(ZeroDivisionError), with_sctypes():
        assert {np.uint8, np.uint16} < set(np.sctypes['uint']) and np.float16 in np.sctypes['float']
        raise ZeroDivisionError
    assert hasattr(np, 'sctypes') == before
