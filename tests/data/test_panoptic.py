"""COCO's panoptic form: what is read, what is refused, and what a panoptic model's config becomes."""
import copy
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import read_config, run_tool
from mmengine.registry import DATASETS, METRICS
from PIL import Image

from dwnet.data.files import Files
from dwnet.data.panoptic import read
from dwnet.data.table import settled
from dwnet.errors import UserError
from dwnet.toolboxes import main_score
from dwnet.toolboxes.checked import with_checks
from dwnet.toolboxes.own_data import use_own_data

CONFIG = 'configs/detection/mask2former_dwnet-tiny_lsj-50e_coco-panoptic.py'
CATEGORIES = [dict(id=7, name='sky', isthing=0), dict(id=2, name='cat', isthing=1), dict(id=9, name='dog', isthing=1)]


def panoptic_root(root: Path, ending: str = 'jpg', **parts: int) -> Path:
    """Images of 64 × 48 pixels, sky with a cat and a dog, whose ids are beyond a byte."""
    for number, (part, images) in enumerate(parts.items()):
        content = dict(images=[], annotations=[], categories=CATEGORIES)
        for folder in (part, f'annotations/panoptic_{part}'):
            (root / folder).mkdir(parents=True)
        for i in range(images):
            colours = np.zeros((48, 64, 3), np.uint8)
            colours[..., 0] = 5  # the sky, id 5
            colours[4:20, 2:30] = 1, 2, 0  # the cat, id 513
            colours[30:40, 40:60] = 0, 0, 1  # the dog, id 65536
            Image.fromarray(colours).save(root / f'annotations/panoptic_{part}/{i}.png')
            Image.fromarray(colours + np.uint8(10 * i + number)).save(root / f'{part}/{i}.{ending}')
            content['images'].append(dict(id=i + 40, file_name=f'{i}.{ending}', width=64, height=48))
            segments = [dict(id=5, category_id=7, bbox=[0, 0, 64, 48], area=2424, iscrowd=0),
                        dict(id=513, category_id=2, bbox=[2, 4, 28, 16], area=448, iscrowd=0),
                        dict(id=65536, category_id=9, bbox=[40, 30, 20, 10], area=200, iscrowd=0)]
            content['annotations'].append(dict(image_id=i + 40, file_name=f'{i}.png', segments_info=segments))
        (root / f'annotations/panoptic_{part}.json').write_text(json.dumps(content))
    return root


def change(root: Path, change) -> None:
    file = root / 'annotations/panoptic_train.json'
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize('ending', ['jpg', 'png'])
def test_things_come_first(ending, tmp_path):
    table = read(Files(panoptic_root(tmp_path, ending, train=2, val=1)), tmp_path / 'out')
    assert (table.classes, table.things) == (['cat', 'dog', 'sky'], 2)
    assert [entry.image for entry in table.parts['train']] == [f'train/0.{ending}', f'train/1.{ending}']
    entry, = table.parts['val']
    assert (entry.image, entry.mask) == (f'val/0.{ending}', 'annotations/panoptic_val/0.png')
    assert entry.size == (64, 48) and [each['label'] for each in entry.objects] == [2, 0, 1]


def test_no_other_coco_file_is_taken(tmp_path):
    (tmp_path / 'instances.json').write_text(json.dumps(dict(images=[], annotations=[], categories=[])))
    assert read(Files(tmp_path), tmp_path / 'out') is None


@pytest.mark.parametrize('mistake, message', [
    (lambda c: c['categories'][0].pop('isthing'), "no whole panoptic file of COCO ('isthing' is missing)"),
    (lambda c: c['annotations'][0]['segments_info'][0].pop('bbox'), "'bbox' is missing"),
    (lambda c: c['categories'][0].update(isthing=1), 'has sky as stuff, and another file'),
    (lambda c: c['categories'][0].update(isthing='0'), 'no whole panoptic file'),
    (lambda c: c['categories'][0].update(name=None), 'no whole panoptic file'),
    (lambda c: c['categories'][0].update(id=2), 'two categories have one id'),
    (lambda c: c['images'][0].update(id=41), 'two images have one id'),
    (lambda c: c['images'][0].update(file_name=5), 'no whole panoptic file'),
    (lambda c: c['images'][0].update(width='64', height='48'), 'no whole panoptic file'),
    (lambda c: c['annotations'][0].update(image_id=[40]), 'no whole panoptic file'),
    (lambda c: c['annotations'][0].update(file_name=None), 'no whole panoptic file'),
    (lambda c: c['annotations'][0]['segments_info'][0].update(category_id=[7]), 'no whole panoptic file'),
    (lambda c: c['annotations'][0].update(file_name='9.png'), None),
    (lambda c: c['annotations'][0].update(image_id=3), None),
    (lambda c: c['images'][0].update(file_name='9.jpg'), None),
])
def test_mistakes_are_named(mistake, message, tmp_path):
    root = panoptic_root(tmp_path, train=3, val=2)
    change(root, mistake)
    if message is None:  # one of a few is left out
        table = read(Files(root), tmp_path / 'out')
        assert [entry.image for entry in table.parts['train']] == ['train/1.jpg', 'train/2.jpg']
        assert len(table.notes) == 1
    else:
        with pytest.raises(UserError) as error:
            read(Files(root), tmp_path / 'out')
        assert message in str(error.value)


def test_an_image_with_two_pngs_is_refused(tmp_path):
    """The segments of one PNG are not those of the other."""
    root = panoptic_root(tmp_path, train=3, val=2)
    change(root, lambda content: content['annotations'][1].update(image_id=40))
    files = Files(root)
    with pytest.raises(UserError, match='0.jpg is named twice in train'):
        settled(read(files, tmp_path / 'out'), files)


def test_one_kind_of_classes_is_no_panoptic_data(tmp_path):
    root = panoptic_root(tmp_path, train=3)
    change(root, lambda content: [category.update(isthing=1) for category in content['categories']])
    with pytest.raises(UserError, match='no stuff among its categories'):
        read(Files(root), tmp_path / 'out')


def own(root: Path, work_dir: Path):
    cfg = copy.deepcopy(read_config(CONFIG))
    cfg.work_dir = str(work_dir)
    return cfg, use_own_data(cfg, str(root))


def test_the_config_of_a_panoptic_model(tmp_path):
    cfg, data = own(panoptic_root(tmp_path / 'my', train=5), tmp_path / 'work')  # a fifth is held back
    assert data.sizes == dict(train=4, val=1) and data.things == 2
    head, fusion = cfg.model.panoptic_head, cfg.model.panoptic_fusion_head
    assert all((part.num_things_classes, part.num_stuff_classes) == (2, 1) for part in (head, fusion))
    assert head.loss_cls.class_weight == [1., 1., 1., .1]
    assert main_score(cfg) == 'coco_panoptic/PQ'
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 4 and dataset.metainfo['thing_classes'] == ['cat', 'dog']
    info = dataset.get_data_info(0)
    assert Path(info['img_path']).is_file() and Path(info['seg_map_path']).is_file()
    assert [each['bbox_label'] for each in info['instances']] == [0, 1]
    assert [(each['id'], each['category']) for each in info['segments_info']] == [(5, 2), (513, 0), (65536, 1)]
    metric = METRICS.build(cfg.val_evaluator)
    assert [(each['name'], each['isthing']) for each in metric.categories.values()] == [
        ('cat', 1), ('dog', 1), ('sky', 0)]
    assert Path(metric.seg_prefix).samefile(tmp_path / 'my/annotations/panoptic_train')


@pytest.mark.long
def test_a_step_of_training_and_a_validation(tmp_path):
    options = ['model.backbone.init_cfg=None', 'model.backbone.arch=dict(embed_dims=32,depths=(1,1,1,1))',
               'model.panoptic_head.in_channels=[32,64,128,256]', 'model.data_preprocessor.batch_augments=None',
               'train_dataloader.dataset.pipeline.3.scale=(64,64)', 'val_dataloader.dataset.pipeline.1.scale=(64,64)',
               'train_dataloader.dataset.pipeline.4.crop_size=(64,64)',
               *(f'{part}_dataloader.{key}' for part in ('train', 'val', 'test') for key in (
                   'num_workers=0', 'persistent_workers=False'))]
    done = run_tool('tools/train.py', CONFIG, '--data-root', panoptic_root(tmp_path / 'my', train=3, val=1),
                    '--epochs', 1, '--work-dir', tmp_path / 'work', '--cfg-options', *options)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = [json.loads(line) for file in tmp_path.glob('work/*/vis_data/scalars.json')
              for line in file.read_text().splitlines()]
    assert any('coco_panoptic/PQ' in each for each in scores)


@pytest.mark.parametrize('form, message', [
    ('folders', 'in the folders'), ('names', 'another name'), ('two roots', 'are read from one data root')])
def test_what_mmdet_cannot_find_is_refused(form, message, tmp_path):
    root = panoptic_root(tmp_path / 'my', train=3, val=2)
    if form == 'folders':
        (root / 'train/more').mkdir()
        (root / 'train/0.jpg').rename(root / 'train/more/0.jpg')
    elif form == 'names':
        (root / 'train/0.jpg').rename(root / 'train/0.JPEG')
        change(root, lambda content: content['images'][0].update(file_name='0.JPEG'))
    roots = [str(root), str(panoptic_root(tmp_path / 'other', train=3))] if form == 'two roots' else [str(root)]
    cfg = copy.deepcopy(read_config(CONFIG))
    cfg.work_dir = str(tmp_path / 'work')
    with pytest.raises(UserError, match=message):
        use_own_data(cfg, *roots)


@pytest.mark.parametrize('damage, message', [
    (lambda png: png[:-12], 'its end is missing'), (lambda png: b'', 'it is empty'),
    (lambda png: png[:len(png) // 2], 'the checksum of its part IDAT is wrong'),
    (None, 'it has 32×24 pixels, and its image 64×48')])
def test_a_damaged_png_is_named_as_it_is_read(damage, message, tmp_path):
    """OpenCV would decode the start, and the training would learn from the rest, too."""
    root = panoptic_root(tmp_path / 'my', train=3, val=2)
    cfg, _ = own(root, tmp_path / 'work')
    dataset = DATASETS.build(with_checks(cfg.train_dataloader.dataset))
    read_both = dataset.pipeline.transforms[:2]

    def read_first() -> np.ndarray:
        info = dataset.get_data_info(0)
        for step in read_both:
            info = step(info)
        return info['gt_seg_map']

    assert np.unique(read_first()).tolist() == [0, 1, 2]
    png = root / 'annotations/panoptic_train/0.png'
    if damage is None:
        Image.open(png).resize((32, 24), Image.Resampling.NEAREST).save(png)
    else:
        png.write_bytes(damage(png.read_bytes()))
    with pytest.raises(ValueError, match=f'0.png does not show the segments of its image: {message}'):
        read_first()
