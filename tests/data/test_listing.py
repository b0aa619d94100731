"""Tables of images and labels: in each writing they give the table that folders of classes give."""
import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_config, run_tool
from PIL import Image

from dwnet.data import folders, listing
from dwnet.data.files import Files
from dwnet.data.own import read_own_data
from dwnet.data.table import Table
from dwnet.errors import UserError

NANO = 'configs/classification/dwnet-nano_digits.py'
LABELS = {'a 1.jpg': 'cat', 'b,2.jpg': 'dog', 'c.JPG': 'cat', 'd.png': 'dog', 'ü.jpg': 'owl', 'f.jpg': 'owl'}


def images(root: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8), (i, 0, 0)).save(root / name)
    return root


def read(root: Path) -> Table | None:
    return listing.read(Files(root), root.parent / 'out')


def truth(table: Table) -> dict:
    return {part: {Path(entry.image).name: entry.label for entry in entries} for part, entries in table.parts.items()}


def csv(rows, head: str = 'file,label', delimiter: str = ',', end: str = '\n') -> str:
    def cell(value: str) -> str:
        return f'"{value}"' if delimiter in value else value

    lines = [delimiter.join(head.split(','))] * bool(head) + [delimiter.join(map(cell, row)) for row in rows]
    return end.join(lines) + end


def lines(rows, file: str = 'file', label: str = 'label') -> str:
    return ''.join(json.dumps({file: name, label: value}, ensure_ascii=False) + '\n' for name, value in rows)


# --- One label an image --------------------------------------------------------------------------------


@pytest.mark.parametrize('name, text', [
    ('all.csv', csv(LABELS.items())), ('ALL.CSV', '\ufeff' + csv(LABELS.items(), end='\r\n')),
    ('my.csv', csv(LABELS.items(), 'Image Path,Class', ';')),
    ('my.tsv', csv(LABELS.items(), 'filename,category', '\t')),
    ('my.csv', csv(LABELS.items(), '')), ('my.csv', csv(LABELS.items(), 'file,label', '|')),
    ('my.csv', csv((name if ',' in name else f'"{name}"', f' "{label}"') for name, label in LABELS.items())),
    ('my.csv', csv(((label, 'x', f'/home/me/pictures/{name}') for name, label in LABELS.items()), 'label,note,path')),
    ('my.csv', csv(((f'C:\\me\\{name}', label) for name, label in LABELS.items()))),
    ('my.csv', '\n' + csv(((name.rpartition('.')[0], label) for name, label in LABELS.items()), 'image_id,label')),
    ('my.jsonl', lines(LABELS.items())), ('my.ndjson', lines(LABELS.items(), 'image', 'class')),
    ('my.jsonl', lines(((name, [label]) for name, label in LABELS.items()), 'img_path')),
    ('one hot.csv', csv(((name, *(str(int(label == each)) for each in ('cat', 'dog', 'owl')))
                         for name, label in LABELS.items()), 'filename,cat,dog,owl'))])
def test_the_same_table_as_from_folders(name, text, tmp_path):
    root = images(tmp_path / 'my', *(f'pictures/{each}' for each in LABELS))
    (root / name).write_text(text, encoding='utf-8', newline='')
    images(tmp_path / 'other', *(f'{label}/{each}' for each, label in LABELS.items()))
    of_folders = folders.read(Files(tmp_path / 'other'), tmp_path)
    table = read(root)
    assert truth(table) == truth(of_folders) and table.classes == of_folders.classes
    assert all(entry.image.startswith('pictures/') for entry in table.parts['all']) and not table.notes


def append(root: Path, part: str, rows: list) -> None:
    with (root / 'all.csv').open('a') as file:
        head = '' if file.tell() else 'file,label,split'
        file.write(csv(((*row, dict(train='training', val='Valid', test='test')[part]) for row in rows), head))


@pytest.mark.parametrize('write', [
    append, lambda root, part, rows: (root / f'{part}.csv').write_text(csv(rows)),
    lambda root, part, rows: (root / f'{part}_labels.jsonl').write_text(lines(rows)),
    lambda root, part, rows: (root / part / 'metadata.csv').write_text(csv(rows, 'file_name,label'))])
def test_parts(write, tmp_path):
    """The images of the parts have the same names."""
    parts = dict(train=dict(a='x', b='y', c='x'), val=dict(a='y'), test=dict(a='x', b='x'))
    for part, labels in parts.items():
        images(tmp_path / 'my', *(f'{part}/{name}.jpg' for name in labels))
    for part, labels in parts.items():
        write(tmp_path / 'my', part, [(f'{part}/{name}.jpg', label) for name, label in labels.items()])
    found = truth(read(tmp_path / 'my'))
    assert found == {part: {f'{name}.jpg': 'xy'.index(label) for name, label in labels.items()}
                     for part, labels in parts.items()}


@pytest.mark.parametrize('numbers, classes', [
    (('0', '1', '10', '0'), ['0', '1', '10']), (('1.0', '2.0', '', '2'), ['1', '2']),
    (('07', '08', '07', '08'), ['07', '08']), (('1.0', '2.5', '1.0', '2.5'), ['1.0', '2.5'])])
def test_numbers_are_names(numbers, classes, tmp_path):
    root = images(tmp_path / 'my', *(f'{i}.jpg' for i in range(4)))
    (root / 'my.csv').write_text(csv((f'{i}.jpg', number) for i, number in enumerate(numbers)))
    assert read(root).classes == classes


def test_numbers_of_json_and_rows_without_a_label(tmp_path):
    root = images(tmp_path / 'my', *(f'{i}.jpg' for i in range(5)))
    (root / 'my.jsonl').write_text(lines((f'{i}.jpg', label) for i, label in enumerate((3, 4, None, '', float('nan')))))
    table = read(root)
    assert truth(table) == dict(all={'0.jpg': 0, '1.jpg': 1}) and table.classes == ['3', '4']
    assert table.notes == ['3 rows of my.jsonl have no label, and are left out',
                           '2 classes have one image to train with: 3, 4']


def test_a_part_without_labels_is_left_out(tmp_path):
    root = images(tmp_path / 'my', *(f'{i}.jpg' for i in range(6)))
    rows = [(f'{i}.jpg', 'ab'[i % 2], 'train' if i < 2 else 'val') for i in range(4)]
    (root / 'my.csv').write_text(csv([*rows, ('4.jpg', '', 'test'), ('5.jpg', '', 'test')], 'file,label,set'))
    data = read_own_data([root], 'classification', [listing, folders], tmp_path / 'out')
    assert data.sizes == dict(train=2, val=2) and any('test is left out' in note for note in data.notes)


@pytest.mark.parametrize('name, text', [
    ('README.csv', 'author,year\nme,2020\n'), ('data.csv', 'file,width,height\na.jpg,3,4\n'), ('empty.csv', ''),
    ('sample_submission.csv', 'image,label\n0.jpg,1\n'), ('log.jsonl', '{"loss": 3}\nx\n'), ('binary.csv', '\0\0"\x80'),
    ('latin.csv', 'autor\nL\xf6we\n')])
def test_tables_of_other_things_are_passed_over(name, text, tmp_path):
    root = images(tmp_path / 'my', *(f'{label}/{i}.jpg' for label in 'ab' for i in range(5)))
    (root / name).write_text(text, encoding='latin-1')
    assert read(root) is None
    data = read_own_data([root], 'classification', [listing, folders], tmp_path / 'out')
    assert data.classes == ['a', 'b'] and data.form.startswith('folders')


@pytest.mark.parametrize('text, message', [
    (csv([('0.jpg', 'a'), ('nowhere.jpg', 'b')]).replace('0.jpg', 'no.jpg'), 'names 2 of 2 images that are not below'),
    (csv([('0.jpg', 'a'), ('1.jpg', 'a')]), r'has 1 labels \(a\): two at least are needed'),
    (csv([('0.jpg', ''), ('1.jpg', '')]), 'has 0 labels'),
    (csv([('0.jpg', 'a', 'train'), ('1.jpg', 'b', 'holdout')], 'file,label,split'),
     'says split = holdout in row 2: write train, val or test'),
    (csv([('0.jpg', 'a'), ('1.jpg', 'b'), ('0.jpg', 'b')]), '0.jpg is named twice in all, with different labels'),
    (csv([('0.jpg', 'L\xf6we'), ('1.jpg', 'b')]), 'my.csv is no text in UTF-8'),
    ('file,label\n' + '0.jpg,a,b\n' * 11 + '1.jpg,c\n', r'11 of 12 rows of .*my.csv are broken .* row 1, row 2,'),
    ('file,label\n0.jpg,a\n"1.jpg,b\n0.jpg,b\n', 'my.csv is no table .unexpected end of data.'),
    ('file,label\n0.jpg,a\n"1.jpg,b\n0.jpg",b\n', 'has a line break inside of a cell of row 2')])
def test_mistakes_are_one_line(text, message, tmp_path):
    root = images(tmp_path / 'my', '0.jpg', '1.jpg')
    (root / 'my.csv').write_text(text, encoding='latin-1')
    with pytest.raises(UserError, match=message) as error:
        read_own_data([root], 'classification', [listing, folders], tmp_path / 'out')
    assert '\n' not in str(error.value)


def test_few_broken_rows_are_left_out_and_told(tmp_path):
    root = images(tmp_path / 'my', *(f'{i}.jpg' for i in range(20)))
    rows = [f'{{"file": "{i}.jpg", "label": "{"ab"[i % 2]}"}}' for i in range(20)]
    rows[3], rows[7], rows[8], rows[9] = '{"file": ', '[1]', '{"label": "a"}', '{"file": ["x"], "label": "a"}'
    (root / 'my.jsonl').write_text('\n'.join([*rows, '{"file": "gone.jpg", "label": "a"}']))
    table = read(root)
    assert len(table.parts['all']) == 16
    assert '4 of 21 rows' in table.notes[0] and 'row 4, row 8, row 9, row 10)' in table.notes[0]
    assert 'gone.jpg' in table.notes[1]


# --- Several labels ------------------------------------------------------------------------------------


SEVERAL = {'0.jpg': ('cat', 'dog'), '1.jpg': ('dog', ), '2.jpg': ('cat', ), '3.jpg': ('cat', 'dog', 'owl'),
           '4.jpg': ('owl', )}


@pytest.mark.parametrize('name, text', [
    ('my.csv', csv((name, '|'.join(labels)) for name, labels in SEVERAL.items())),
    ('my.csv', csv((name, '; '.join(labels)) for name, labels in SEVERAL.items())),
    ('my.csv', csv((name, str(list(labels))) for name, labels in SEVERAL.items())),
    ('my.tsv', csv(((name, json.dumps(labels)) for name, labels in SEVERAL.items()), 'file,tags', '\t')),
    ('my.jsonl', lines(SEVERAL.items())),
    ('my.jsonl', lines((name, '|'.join(labels)) for name, labels in SEVERAL.items())),
    ('_classes.csv', csv(((name, *(f' {int(each in labels)}' for each in ('owl', 'cat', 'dog')))
                          for name, labels in SEVERAL.items()), 'filename, owl, cat, dog')),
    ('my.csv', csv(((name, '33', *('1.0' if each in labels else '' for each in ('owl', 'cat', 'dog')))
                    for name, labels in SEVERAL.items()), 'path,age,owl,cat,dog'))])
def test_several_labels(name, text, tmp_path):
    root = images(tmp_path / 'my', *SEVERAL)
    (root / name).write_text(text)
    table = read(root)
    classes = ['cat', 'dog', 'owl']
    assert table.classes == classes
    assert truth(table)['all'] == {name: tuple(map(classes.index, labels)) for name, labels in SEVERAL.items()}
    assert table.form.startswith('several labels') and len(table.notes) == text.count('age')


@pytest.mark.parametrize('name, text', [
    ('my.csv', 'file,a,b\n0.jpg,1,1\n1.jpg,0,0\n2.jpg,,\n3.jpg,1,0\n4.jpg,0,1\n'),
    ('my.jsonl', lines([('0.jpg', ['a', 'b']), ('1.jpg', []), ('2.jpg', None), ('3.jpg', ['a']), ('4.jpg', 'b')]))])
def test_no_label_is_not_the_same_as_not_labelled(name, text, tmp_path):
    root = images(tmp_path / 'my', *(f'{i}.jpg' for i in range(5)))
    (root / name).write_text(text)
    table = read(root)
    assert truth(table)['all'] == {'0.jpg': (0, 1), '1.jpg': (), '3.jpg': (0, ), '4.jpg': (1, )}
    assert f'1 rows of {name} have no label, and are left out' in table.notes


def test_the_rarest_label_decides_the_split(tmp_path):
    root = images(tmp_path / 'my', *(f'{i}.jpg' for i in range(40)))
    (root / 'my.csv').write_text(csv((f'{i}.jpg', 'a|b' if i < 36 else 'a|rare') for i in range(40)))
    for seed in range(3):
        data = read_own_data([root], 'classification', [listing], tmp_path / f'out{seed}')
        content = {part: json.loads(Path(data.parts[part]['ann_file']).read_text()) for part in ('train', 'val')}
        rare = [sum(2 in each['gt_label'] for each in part['data_list']) for part in content.values()]
        assert data.several_labels and rare == [3, 1] and data.sizes == dict(train=32, val=8)


def own(root: Path, config: str = NANO):
    from dwnet.toolboxes.own_data import use_own_data
    cfg = copy.deepcopy(read_config(config))
    cfg.work_dir = str(root.parent / 'work')
    return cfg, use_own_data(cfg, str(root))


@pytest.mark.parametrize('config', [NANO, 'configs/classification/dwnet-tiny_in1k.py'])
def test_the_head_and_the_scores_of_several_labels(config, tmp_path):
    """The loss is that of each class by itself; mixup mixes several labels, too."""
    from mmengine.registry import MODELS

    from dwnet.toolboxes import main_score
    root = images(tmp_path / 'my', *SEVERAL)
    (root / 'my.csv').write_text(csv((name, '|'.join(labels)) for name, labels in SEVERAL.items()))
    cfg, data = own(root, config)
    assert main_score(cfg) == 'multi-label/mAP' and cfg.train_dataloader.dataset.type == 'mmpretrain.MultiLabelDataset'
    cfg.model.backbone.init_cfg = None
    head = MODELS.build(cfg.model.head)
    from mmpretrain.structures import DataSample
    samples = [DataSample().set_gt_label(labels) for labels in ([0, 2], [], [1])]
    scores = torch.randn(3, 3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        scores, torch.tensor([[1., 0, 1], [0, 0, 0], [0, 1, 0]]), reduction='sum') / 3
    assert head._get_loss(scores, samples)['loss'] == pytest.approx(expected.item(), rel=1e-5)
    predicted = head._get_predictions(torch.tensor([[3., -3, 3], [-1, -1, -1]]), None)
    assert [sample.pred_label.tolist() for sample in predicted] == [[0, 2], []]
    if cfg.model.get('train_cfg'):
        settings = {**cfg.model.data_preprocessor, 'batch_augments': cfg.model.train_cfg, 'type': 'ClsDataPreprocessor'}
        mixed = MODELS.build(settings)(dict(inputs=[torch.rand(3, 8, 8)] * 3, data_samples=samples), training=True)
        total = sum(sample.gt_score for sample in mixed['data_samples'])
        assert total.tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_the_scores_of_each_class():
    """Cat's images have the ranks 1 and 3 of 4, dog's the rank 2; no image shows an owl."""
    from dwnet.toolboxes.mmpretrain.class_scores import AveragePrecisionOfClasses
    metric = AveragePrecisionOfClasses()
    metric.dataset_meta = dict(classes=['cat', 'dog', 'owl'])
    scores = torch.tensor([[.9, .2, .1], [.8, .9, .1], [.7, .8, .1], [.1, .1, .9]])
    truth = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]])
    of_all = metric.compute_metrics([dict(pred_score=score, gt_score=own) for score, own in zip(scores, truth)])
    expected = [100 * (1 + 2 / 3) / 2, 50.]
    assert metric.of_classes['AP'][:2] == pytest.approx(expected, abs=.01) and np.isnan(metric.of_classes['AP'][2])
    assert metric.of_classes['images'] == [2, 1, 0] and of_all['mAP'] == pytest.approx(sum(expected) / 3)


def test_other_heads_are_refused(tmp_path):
    from dwnet.toolboxes import TOOLBOXES
    root = images(tmp_path / 'my', *SEVERAL)
    (root / 'my.csv').write_text(csv((name, '|'.join(labels)) for name, labels in SEVERAL.items()))
    cfg, data = own(root)
    cfg.model.head = dict(type='StackedLinearClsHead', num_classes=3)
    with pytest.raises(UserError, match='with the head LinearClsHead, and this one has StackedLinearClsHead'):
        TOOLBOXES['mmpretrain'].fit_to_data(cfg, data)


@pytest.mark.parametrize('labels', [pytest.param('one', marks=pytest.mark.long), 'several'])
def test_from_a_table_to_a_tested_model(labels, small_digits, tmp_path):
    root = tmp_path / 'my'
    root.mkdir()
    rows = []
    for digit in (3, 7):
        for path in sorted((small_digits / f'classification/train/{digit}').iterdir())[:12]:
            shutil.copy(path, root / f'{digit}_{path.name}')
            rows.append((f'{digit}_{path.name}', f'{digit}|odd' if labels == 'several' else str(digit)))
    (root / 'labels.csv').write_text(csv(rows))
    options = ['--cfg-options', 'log_level=ERROR', f'experiment_name={tmp_path.name}']
    for part in ('train', 'val', 'test'):
        options += [f'{part}_dataloader.num_workers=0', f'{part}_dataloader.persistent_workers=False']
    work_dir = tmp_path / 'work'
    done = run_tool('tools/train.py', NANO, '--data-root', root, '--epochs', 1, '--work-dir', work_dir, *options)
    assert done.returncode == 0, done.stderr
    score = 'multi-label/mAP' if labels == 'several' else 'accuracy/top1'
    page = (work_dir / 'report.html').read_text()
    assert ('>AP<' in page) == (labels == 'several') and list(work_dir.glob('best_*.pth'))
    config, checkpoint = work_dir / 'dwnet-nano_digits.py', next(work_dir.glob('best_*.pth'))
    options[2] += '-test'
    done = run_tool('tools/test.py', config, checkpoint, '--work-dir', work_dir, *options)
    assert done.returncode == 0 and score in json.loads((work_dir / 'scores.json').read_text()), done.stderr
    done = run_tool('tools/infer.py', root, '--out', tmp_path / 'out', '--config', config, '--checkpoint', checkpoint)
    assert done.returncode == 0, done.stderr
    predicted = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert predicted['classes'] == (['3', '7', 'odd'] if labels == 'several' else ['3', '7'])
    assert len(predicted['predictions']) == 24
    if labels == 'several':
        done = run_tool('tools/analyze.py', config, checkpoint, '--out', tmp_path / 'pictures', *options)
        assert done.returncode == 2 and 'an image must have one label' in done.stderr and done.stderr.count('\n') == 1


def test_a_table_as_powershell_writes_it(tmp_path):
    root = images(tmp_path / 'my', *LABELS)
    (root / 'all.csv').write_text(csv(LABELS.items()), encoding='utf-16')
    assert [*truth(read(root))] and read(root).classes == ['cat', 'dog', 'owl']
