"""Names of classes in pictures: a font that has their letters, or numbers; never empty boxes."""
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import read_config
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager, rc_context

from dwnet.engine import Runner, fonts
from dwnet.engine.fonts import drawable
from dwnet.inspect.figure import contact_sheet
from dwnet.inspect.samples import draw, make_visualizer

CONFIGS = {
    'classification': 'configs/classification/dwnet-nano_digits.py',
    'detection': 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
    'segmentation': 'configs/segmentation/upernet_dwnet-nano_digits.py',
}
ANIMALS = ['cat', '猫', '狗']


def write_font(path: Path, letters: str, family: str) -> Path:
    """A font whose every letter is a full square."""
    pen = TTGlyphPen(None)
    for i, corner in enumerate([(0, 0), (0, 900), (900, 900), (900, 0)]):
        (pen.lineTo if i else pen.moveTo)(corner)
    pen.closePath()
    names = ['.notdef', *(f'u{ord(letter):x}' for letter in letters)]
    font = FontBuilder(1000)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:])})
    font.setupGlyf({name: pen.glyph() for name in names})
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable(dict(familyName=family, styleName='Regular', psName=family.replace(' ', '')))
    font.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    font.setupPost()
    font.save(path)
    return path


ASCII = ''.join(map(chr, range(32, 127)))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """The fonts of a machine, besides matplotlib's own; nothing is left changed."""
    found = []
    monkeypatch.setattr(font_manager, 'findSystemFonts', lambda: [str(path) for path in found])
    fonts._say.cache_clear()
    listed = list(font_manager.fontManager.ttflist)

    def install(letters: str, family: str) -> None:
        found.append(write_font(tmp_path / f'{family}.ttf', letters, family))

    with rc_context():
        yield install
    font_manager.fontManager.ttflist[:] = listed
    font_manager.fontManager._findfont_cached.cache_clear()


def glyphs_are_missing(names: list[str]) -> bool:
    """Whether matplotlib misses a letter when it draws the names."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        contact_sheet([np.zeros((9, 9, 3), np.uint8)] * len(names), names).savefig(io.BytesIO())
    return any('missing from' in str(warning.message) for warning in caught)


def test_matplotlibs_own_font_suffices(machine, capsys):
    names = ['cat', 'çà', 'кошка', 'γάτα', 'قطة', '50 %', '']
    assert drawable(names) == names and not glyphs_are_missing(names)
    assert capsys.readouterr().out == ''


def test_without_a_font_names_become_numbers(machine, capsys):
    machine('猫狗', 'No Digits')  # scores could not be drawn
    assert glyphs_are_missing(ANIMALS)
    assert drawable(ANIMALS) == drawable(ANIMALS) == ['cat', '1', '2']
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith("pictures show numbers of classes for names such as '猫': no font of this machine has its")


def test_the_font_with_most_letters_is_chosen(machine, capsys):
    machine(f'{ASCII}猫', 'Few Sans')
    assert drawable(ANIMALS) == ['cat', '猫', '2'] and not glyphs_are_missing(['cat', '猫', '2'])
    machine(f'{ASCII}猫狗', 'Many Sans')
    assert drawable(ANIMALS) == ANIMALS and not glyphs_are_missing(ANIMALS)
    assert len(capsys.readouterr().out.splitlines()) == 1  # of the first, poorer font
    assert drawable(['кошка']) == ['кошка'] and not glyphs_are_missing(['кошка'])  # back


def test_damaged_fonts_are_passed_over(machine, tmp_path):
    machine(f'{ASCII}猫狗', 'Sans')
    (tmp_path / 'Sans.ttf').write_bytes(b'no font')
    assert drawable(ANIMALS) == ['cat', '1', '2']


@pytest.mark.parametrize('task, shown', [
    ('classification', ANIMALS), ('detection', ANIMALS), ('segmentation', ['cat', '1', '2'])])
def test_visualizers_get_names_that_they_can_draw(task, shown, machine, capsys):
    machine(f'{ASCII}猫狗', 'Many Sans')
    cfg, meta = read_config(CONFIGS[task]), dict(classes=ANIMALS, palette=[[0, 0, 0]] * 3)
    visualizer = make_visualizer(cfg, meta, f'fonts-{task}')
    assert visualizer.dataset_meta == {**meta, 'classes': shown} and meta['classes'] == ANIMALS
    assert ('have ASCII letters alone' in capsys.readouterr().out) == (task == 'segmentation')
    if task == 'classification':
        from mmpretrain.structures import DataSample
        with warnings.catch_warnings():
            warnings.filterwarnings('error', message='.*missing from')
            draw(visualizer, np.zeros((64, 64, 3), np.uint8), DataSample().set_gt_label(1), True)


def test_pictures_of_a_test_too(machine, monkeypatch):
    runner = Runner.__new__(Runner)
    runner.cfg = read_config(CONFIGS['segmentation'])
    runner.visualizer = SimpleNamespace(dataset_meta=None)
    meta = dict(classes=ANIMALS)

    def build(self, loop):
        self.visualizer.dataset_meta = meta
        return loop

    monkeypatch.setattr('mmengine.runner.Runner.build_test_loop', build)
    assert runner.build_test_loop('loop') == 'loop'
    assert runner.visualizer.dataset_meta == dict(classes=['cat', '1', '2']) and meta['classes'] == ANIMALS


def test_names_may_be_numbers():
    assert drawable([0, 1]) == ['0', '1'] == drawable([0, 1], only_ascii=True)
