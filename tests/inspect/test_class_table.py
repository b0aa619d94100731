"""The classes on the page of a training."""
from types import SimpleNamespace

from PIL import Image

from dwnet.inspect.class_table import class_table
from dwnet.inspect.page import Table, write_page
from dwnet.inspect.report import plot_curves


def counting(**of_parts) -> tuple[SimpleNamespace, dict]:
    """A toolbox that counts so, and its data sets."""
    names = 'ab'
    parts = {part: SimpleNamespace(metainfo=dict(classes=names), counts=counts) for part, counts in of_parts.items()}
    return SimpleNamespace(count_classes=lambda dataset: dataset.counts), parts


def test_numbers_scores_and_remarks():
    toolbox, parts = counting(train=dict(images=[20, 3], objects=[30, 9]), val=dict(images=[0, 4], objects=[0, 10]))
    scores = {'class': ['a', 'b'], 'objects': [0, 10], 'box AP': [float('nan'), .25]}
    table = class_table(toolbox, parts, scores)
    assert table.columns == ['class', 'train images', 'train objects', 'val images', 'val objects', 'box AP', '']
    rows = list(table.rows)
    assert rows[1] == ('b', 3, 9, 4, 10, .25, 'few in train') and rows[0][-1] == 'none in val'
    assert class_table(toolbox, parts, {}).columns[-2:] == ['val objects', '']  # another metric scores no classes


def test_data_that_nobody_counts_have_no_table():
    assert class_table(*counting(train=dict(images=[1, 1]), val={}), {}) is None


def test_a_page_with_a_table(tmp_path):
    rows = [('<a>', 1200000, float('nan')), ('b', 2, .25)]
    page = write_page(tmp_path / 'x.html', 't', 'text', [('', '', Table(('class', 'n', 'AP'), rows)),
                                                        ('Picture', 'hint', Image.new('RGB', (4, 4)))]).read_text()
    assert '<tr><th>class<th class=number>n<th class=number>AP\n' in page
    assert '<tr><td>&lt;a&gt;<td class=number>1200000<td class=number>–\n' in page
    assert '<td class=number>0.25' in page and page.index('<table>') < page.index('<h2>Picture') and (
        page.count('<h2>') == page.count('<img ') == 1)


def test_curves_of_a_single_and_of_no_point():
    panels = {'loss': ('iteration', {'training': {1: 2.}, 'validation': {}}), 'score': ('epoch', {'': {}})}
    assert plot_curves(panels).width == 1100
