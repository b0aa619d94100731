"""The embedded data: deterministic, disjoint, whole, and readable by the toolboxes' own classes."""
import filecmp
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from pycocotools.coco import COCO
from sklearn.datasets import load_digits

from dwnet.demo import digits
from dwnet.engine.preflight import check_data
from dwnet.errors import UserError

SMALL = digits.DigitsConfig(renderings=1, train_scenes=24, test_scenes=9)  # as in conftest


def test_same_seed_same_files_other_seed_other_files(small_digits, tmp_path):
    digits.prepare(tmp_path / 'again', SMALL, show_progress=False)
    files = [p.relative_to(small_digits) for p in small_digits.rglob('*') if p.is_file()]
    assert len(files) == 1347 + 450 + 2 * (24 + 9) + 3
    _, mismatch, errors = filecmp.cmpfiles(small_digits, tmp_path / 'again', map(str, files), shallow=False)
    assert mismatch == errors == []
    other = digits.DigitsConfig(seed=1, renderings=0, train_scenes=2, test_scenes=1)
    digits.prepare(tmp_path / 'other', other, show_progress=False)
    name = 'scenes/train/00000.jpg'
    assert not filecmp.cmp(small_digits / name, tmp_path / 'other' / name, shallow=False)


def test_no_test_digit_in_training(small_digits):
    sources = {}
    for part in ('train', 'test'):
        annotations = json.loads((small_digits / f'annotations/{part}.json').read_text())['annotations']
        sources[part] = {a['digit'] for a in annotations}
        labels = load_digits().target
        assert all(labels[a['digit']] + 1 == a['category_id'] for a in annotations)
    assert sources['train'] and sources['test'] and not sources['train'] & sources['test']


def test_classification_parts_are_disjoint(small_digits):
    """Each of scikit-learn's digits is drawn once here, so the counts tell that no digit is in both parts."""
    target = np.bincount(load_digits().target)
    for name, total in zip(digits.CLASSES, target):
        counts = [len(list((small_digits / f'classification/{part}/{name}').iterdir())) for part in ('train', 'test')]
        assert sum(counts) == total and .2 < counts[1] / total < .3


def test_masks_boxes_and_labels_tell_the_same(small_digits):
    coco = COCO(small_digits / 'annotations/train.json')
    for image in coco.loadImgs(coco.getImgIds()):
        labels = np.asarray(Image.open(small_digits / 'labels/train' / image['file_name'].replace('jpg', 'png')))
        painted = np.zeros_like(labels)
        annotations = coco.imgToAnns[image['id']]
        assert 1 <= len(annotations) <= 6
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert not painted[mask].any(), 'masks are of visible pixels, so they do not overlap'
            painted[mask] = annotation['category_id']
            rows, columns = np.nonzero(mask)
            x, y, w, h = annotation['bbox']
            assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert annotation['area'] == mask.sum() > 0
        assert (painted == labels).all()


@pytest.mark.parametrize('harm', ['remove', 'truncate', 'foreign', 'manifest'])
def test_damage_is_found_and_mended(tmp_path, harm):
    config = digits.DigitsConfig(renderings=0, train_scenes=2, test_scenes=1)
    root = tmp_path / 'digits'
    assert digits.prepare(root, config, show_progress=False)
    assert not digits.prepare(root, config, show_progress=False)
    victim = root / 'scenes/train/00001.jpg'
    if harm == 'remove':
        victim.unlink()
    elif harm == 'truncate':
        victim.write_bytes(victim.read_bytes()[:-100])
    elif harm == 'foreign':
        (root / 'classification/train/3/mine.jpg').write_bytes(victim.read_bytes())
    else:
        (root / 'manifest.json').write_text('{')
    assert not digits.is_complete(root, config)
    assert digits.prepare(root, config, show_progress=False)
    assert digits.is_complete(root, config)


def test_a_folder_of_others_is_not_touched(tmp_path):
    (tmp_path / 'imagenet').mkdir()
    with pytest.raises(UserError, match='holds other files'):
        digits.prepare(tmp_path, show_progress=False)
    assert (tmp_path / 'imagenet').is_dir()


def test_interrupted_drawing_leaves_what_was_there(tmp_path, monkeypatch):
    root = tmp_path / 'digits'
    config = digits.DigitsConfig(renderings=0, train_scenes=2, test_scenes=1)
    digits.prepare(root, config, show_progress=False)
    monkeypatch.setattr(digits, '_write_part', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        digits.prepare(root, digits.DigitsConfig(seed=5), show_progress=False)
    assert digits.is_complete(root, config)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['digits', 'digits.lock']


@pytest.mark.parametrize('task, scope, number', [
    ('classification', 'mmpretrain', 1347), ('detection', 'mmdet', 24), ('segmentation', 'mmseg', 24)])
def test_the_toolboxes_own_classes_read_it(small_digits, task, scope, number):
    cfg = Config.fromfile(f'configs/_base_/datasets/digits_{task}.py').train_dataloader.dataset
    init_default_scope(scope)
    __import__(f'{scope}.datasets')
    dataset = DATASETS.build({**cfg, 'data_root': str(small_digits)})
    assert len(dataset) == number
    sample = dataset[0]
    assert sample['inputs'].shape[1:] == ((64, 64) if task == 'classification' else (128, 128))


# --- Made where they are used --------------------------------------------------------------------------
@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """An empty folder for small data; lists each drawing of the data."""
    monkeypatch.chdir(tmp_path)
    calls, draw, prepare = [], digits._draw, digits.prepare

    def counted(root, config):
        calls.append(root)
        return draw(root, config)

    monkeypatch.setattr(digits, '_draw', counted)
    monkeypatch.setattr(digits, 'prepare', lambda root: prepare(root, SMALL, show_progress=False))
    return calls


def test_processes_that_miss_them_together_make_them_once(drawn):
    with ThreadPoolExecutor(4) as pool:  # each has a lock of its own, as processes have
        list(pool.map(digits.prepare_if_missing, ['data/digits/scenes/train'] * 4))
    assert len(drawn) == 1 and digits.is_complete('data/digits', SMALL)
    assert not [path for path in Path('data').iterdir() if path.name.startswith('.digits-')]


@pytest.mark.parametrize('path', ['data/digits', 'data/other/scenes', '/data/digits/scenes', 'data/digits/mine/train',
                                  'data/digits/../coco'])
def test_other_data_are_not_theirs(path, drawn):
    digits.prepare_if_missing(path)
    assert not drawn and not Path('data').exists()


def test_a_folder_that_is_there_stays(drawn):
    Path('data/digits/labels').mkdir(parents=True)
    Path('data/digits/labels/mine.png').write_bytes(b'precious')
    cfg = Config.fromfile(ROOT / 'configs/segmentation/upernet_dwnet-nano_digits.py')
    with pytest.raises(UserError, match='scenes/train is missing .* remove data/digits, and it is made again'):
        check_data(cfg, 'train', prepare=digits.prepare_if_missing)
    assert not drawn and Path('data/digits/labels/mine.png').read_bytes() == b'precious'


@pytest.mark.parametrize('name', [
    'classification/dwnet-nano_digits', 'detection/cascade-mask-rcnn_dwnet-nano_fpn_digits',
    'segmentation/upernet_dwnet-nano_digits'])
def test_a_config_of_theirs_makes_them(name, drawn):
    check_data(Config.fromfile(ROOT / f'configs/{name}.py'), 'train', 'val',
               prepare=digits.prepare_if_missing)
    assert len(drawn) == 1
