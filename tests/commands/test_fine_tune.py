"""Own data in three forms, and the options of a fine-tuning; as a newcomer would type them."""
import copy
import functools
import json
import posixpath
import shutil
import types
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_config, run_tool
from mmdet.evaluation import CocoMetric
from mmengine.config import Config, ConfigDict
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from PIL import Image
from test_resume import Noise, Stop, runner_for, same, state_of

from dwnet import DWNet
from dwnet.checkpoint import read_checkpoint
from dwnet.commands.options.fine_tuning import (
    enable_early_stopping,
    enable_ema,
    enable_freeze,
    enable_layer_decay,
    enable_own_data,
    set_epochs,
)
from dwnet.commands.options.running import enable_tta
from dwnet.commands.options.weights import start_with_new_heads
from dwnet.data.checks import find_heads
from dwnet.engine import Runner
from dwnet.errors import UserError
from dwnet.toolboxes import main_score
from dwnet.toolboxes.base import innermost
from dwnet.toolboxes.own_data import use_own_data

NANO = dict(classification='configs/classification/dwnet-nano_digits.py',
            detection='configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
            segmentation='configs/segmentation/upernet_dwnet-nano_digits.py')
TINY = dict(classification='configs/classification/dwnet-tiny_in1k.py',
            detection='configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py',
            segmentation='configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py')


# --- Data in the making --------------------------------------------------------------------------------


def picture(path: Path, size: tuple[int, int] = (40, 30), mode: str = 'RGB') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 100).save(path)


def folders(root: Path, **classes: int) -> Path:
    """cat=5 → five pictures in ROOT/cat; train__cat=5 in ROOT/train/cat."""
    for name, number in classes.items():
        folder = root / name.replace('__', '/')
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(number):
            picture(folder / f'{i}.jpg')
    return root


def coco(path: Path, files: list[str], names: list[str] = ['cat', 'dog'], used: int = 2, masks: bool = True,
         **changes) -> dict:
    """Every image has two boxes, of the first ``used`` categories in turn."""
    annotations = [
        dict(id=2 * i + j, image_id=i, category_id=10 + (2 * i + j) % used, bbox=[2, 3, 10, 12], area=120, iscrowd=0,
             **(dict(segmentation=[[2, 3, 12, 3, 12, 15, 2, 15]]) if masks else {}))
        for i in range(len(files)) for j in range(2)]
    content = dict(images=[dict(id=i, file_name=name, width=40, height=30) for i, name in enumerate(files)],
                   categories=[dict(id=10 + i, name=name) for i, name in enumerate(names)], annotations=annotations)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **changes}))
    return content


def coco_root(root: Path, number: int = 10, **options) -> Path:
    coco(root / 'annotations/all.json', [f'{i}.jpg' for i in range(number)], **options)
    for i in range(number):
        picture(root / f'images/{i}.jpg')
    return root


def mask(path: Path, *values: int, mode: str = 'L') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.resize(np.array(values, np.uint8), (30, 40))
    Image.fromarray(labels).convert(mode).save(path)


def masks_root(root: Path, values=(0, 1, 2, 255), parts=('.', ), number: int = 6, folder: str = 'masks') -> Path:
    for part in parts:
        for i in range(number):
            picture(root / f'images/{part}/{i}.jpg')
            mask(root / f'{folder}/{part}/{i}.png', *values)
    return root


_read = functools.cache(read_config)


def own(task: str, root: Path, configs: dict = NANO):
    cfg = copy.deepcopy(_read(configs[task]))
    cfg.work_dir = str(root.parent / 'work')
    return cfg, use_own_data(cfg, str(root))


# --- Finding data --------------------------------------------------------------------------------------


def test_folders_of_classes_are_split_alike_every_time(tmp_path):
    root = folders(tmp_path / 'my', cat=11, dog=5, owl=2)
    (root / '.hidden').mkdir()
    cfg, data = own('classification', root)
    assert data.classes == ['cat', 'dog', 'owl'] and data.sizes == dict(train=14, val=4)
    lists = {part: Path(data.parts[part]['ann_file']).read_text().splitlines() for part in ('train', 'val')}
    assert not set(lists['train']) & set(lists['val'])
    assert sorted(line.split('/')[0] for line in lists['val']) == ['cat', 'cat', 'dog', 'owl']
    assert {line.split('/')[0]: line[-1] for line in lists['train']} == dict(cat='0', dog='1', owl='2')
    assert own('classification', root)[1] == data
    assert {k: p.read_text().splitlines() for k in lists for p in [Path(data.parts[k]['ann_file'])]} == lists
    assert cfg.test_dataloader.dataset.ann_file == cfg.val_dataloader.dataset.ann_file
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1, )


@pytest.mark.parametrize('val', ['val', 'valid', 'validation', 'test'])
def test_folders_that_are_split_already(val, tmp_path):
    root = folders(tmp_path / 'my', train__b=3, train__a=2, **{f'{val}__a': 1})
    _, data = own('classification', root)
    assert data.classes == ['a', 'b'] and data.sizes == dict(train=5, val=1)
    assert Path(data.parts['val']['ann_file']).read_text() == f'{val}/a/0.jpg 0\n'
    assert any('best checkpoint is chosen on it' in note for note in data.notes) == (val == 'test')


def test_a_test_set_beside_the_validation_set_is_tested(tmp_path):
    root = folders(tmp_path / 'my', train__a=2, train__b=2, val__a=1, val__b=1, test__a=3, test__b=3)
    cfg, data = own('classification', root)
    assert data.sizes == dict(train=4, val=2, test=6)
    assert cfg.test_dataloader.dataset.ann_file.endswith('test.txt')


def test_one_coco_file_is_split(tmp_path):
    cfg, data = own('detection', coco_root(tmp_path / 'my', names=['none', 'dog'], used=2))
    assert data.classes == ['none', 'dog'] and data.sizes == dict(train=8, val=2) and data.with_masks
    files = {part: json.loads(Path(data.parts[part]['ann_file']).read_text()) for part in ('train', 'val')}
    names = {part: {image['file_name'] for image in content['images']} for part, content in files.items()}
    assert not names['train'] & names['val'] and len(names['train'] | names['val']) == 10
    assert [len(content['annotations']) for content in files.values()] == [16, 4]
    assert all(name.startswith('images/') for name in names['train'] | names['val'])
    assert cfg.val_dataloader.dataset.data_root == str(tmp_path / 'my')
    assert cfg.val_evaluator == dict(type='mmdet.CocoMetric', ann_file=data.parts['val']['ann_file'],
                                     metric=['bbox', 'segm'])


@pytest.mark.parametrize('train, val, folders', [
    ('annotations/instances_train2017.json', 'annotations/instances_val2017.json', ('train2017', 'val2017')),
    ('train/_annotations.coco.json', 'valid/_annotations.coco.json', ('train', 'valid')),  # Roboflow's
    ('annotations/train.json', 'annotations/test.json', ('scenes/train', 'scenes/test'))])
def test_coco_files_by_their_parts(train, val, folders, tmp_path):
    root = tmp_path / 'my'
    coco(root / train, ['0.jpg', '1.jpg', '2.jpg'], names=['all', 'cat', 'dog'][::-1])  # a category without objects
    coco(root / val, ['0.jpg'], names=['all', 'cat', 'dog'][::-1])
    coco(root / 'annotations/captions_train2017.json' if '2017' in train else root / train, ['0.jpg', '1.jpg', '2.jpg'],
         names=['dog', 'cat', 'all'])
    for folder in folders:  # the same names in both
        for i in range(3):
            picture(root / folder / f'{i}.jpg')
    cfg, data = own('detection', root)
    assert data.sizes == dict(train=3, val=1) and data.classes == ['dog', 'cat']
    assert [{posixpath.dirname(image['file_name']) for image in json.loads(Path(
        innermost(cfg[f'{part}_dataloader'].dataset).ann_file).read_text())['images']}
            for part in ('train', 'val')] == [{folder} for folder in folders]


def test_several_files_a_part_are_joined(tmp_path):
    root, alone = coco_root(tmp_path / 'my'), coco_root(tmp_path / 'alone/my')
    content = json.loads((root / 'annotations/all.json').read_text())
    for name, kept in (('all', content['annotations'][:12]), ('more', content['annotations'][10:])):  # two in both
        (root / f'annotations/{name}.json').write_text(json.dumps({**content, 'annotations': kept}))
    _, data = own('detection', root)
    assert any('10 images of all are named twice' in note for note in data.notes)
    for part, expected in own('detection', alone)[1].parts.items():
        assert Path(data.parts[part]['ann_file']).read_text() == Path(expected['ann_file']).read_text()


def test_boxes_without_masks_leave_the_mask_head_out(tmp_path):
    cfg, data = own('detection', coco_root(tmp_path / 'my', masks=False), TINY)
    assert not data.with_masks and cfg.model.roi_head.mask_head is None and cfg.val_evaluator.metric == ['bbox']
    loading = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == 'LoadAnnotations']
    assert [step['with_mask'] for step in loading] == [False]


@pytest.mark.parametrize('folder', ['masks', 'labels', 'annotations'])
def test_masks_with_a_split_and_numbers_for_names(folder, tmp_path):
    cfg, data = own('segmentation', masks_root(tmp_path / 'my', parts=('train', 'val'), folder=folder), TINY)
    assert data.classes == ['0', '1', '2'] and data.sizes == dict(train=6, val=6)
    dataset = cfg.train_dataloader.dataset
    pairs = json.loads(Path(dataset.ann_file).read_text())
    assert pairs == [[f'images/train/{i}.jpg', f'{folder}/train/{i}.png'] for i in range(6)]
    assert dataset.reduce_zero_label is False and len(dataset.metainfo.palette) == 3
    assert 'reduce_zero_label' not in str(dataset.pipeline)  # ADE20K's label 0 is no class


def test_masks_in_one_part_only(tmp_path):
    for part, masks in (('train', True), ('val', False)):
        coco(tmp_path / f'my/annotations/{part}.json', [f'{part}{i}.jpg' for i in range(3)], masks=masks)
        for i in range(3):
            picture(tmp_path / f'my/{part}{i}.jpg')
    with pytest.raises(UserError, match='the objects of train have masks and those of val have none'):
        own('detection', tmp_path / 'my')


@pytest.mark.parametrize('work_dir', ['work_dirs/nano', 'run'])
def test_a_work_dir_among_the_data_is_not_data(work_dir, tmp_path):
    root = folders(tmp_path / 'my', a=5, b=5)
    cfg = copy.deepcopy(_read(NANO['classification']))
    cfg.work_dir = str(root / work_dir)
    picture(root / work_dir / 'curves.png')  # of an earlier training
    assert use_own_data(cfg, str(root)).classes == ['a', 'b']
    root = coco_root(tmp_path / 'objects')
    for _ in range(2):  # the first one writes its split
        cfg = copy.deepcopy(_read(NANO['detection']))
        cfg.work_dir = str(root / work_dir)
        assert use_own_data(cfg, str(root)).sizes == dict(train=8, val=2)


@pytest.mark.parametrize('listed', ['classes.txt', 'labels.txt'])
def test_masks_without_a_split_with_names_and_endings(listed, tmp_path):
    root = masks_root(tmp_path / 'my', number=7)
    for path in (root / 'masks').iterdir():
        path.rename(path.with_name(f'{path.stem}_mask.png'))
    (root / listed).write_text('ground\nroad\n\ncar\nbus\n')
    _, data = own('segmentation', root)
    assert data.classes == ['ground', 'road', 'car', 'bus'] and data.sizes == dict(train=6, val=1)
    pairs = [pair for part in ('train', 'val') for pair in json.loads(Path(data.parts[part]['ann_file']).read_text())]
    assert sorted(pairs) == [[f'images/{i}.jpg', f'masks/{i}_mask.png'] for i in range(7)]


def colour(root):
    Image.new('RGB', (40, 30), 'red').save(root / 'masks/0.png')


def as_jpeg(root):
    for path in [*(root / 'masks').iterdir()]:
        path.rename(path.with_suffix('.jpg'))


def names(*lines, encoding='utf-8'):
    return lambda root: (root / 'classes.txt').write_text('\n'.join(lines), encoding=encoding)


def boxes_alone(number):
    """CVAT's rectangles, beside its polygons."""
    def spoil(root):
        content = json.loads((root / 'annotations/all.json').read_text())
        for annotation in content['annotations'][:number]:
            annotation['segmentation'] = []
        (root / 'annotations/all.json').write_text(json.dumps(content))
    return spoil


def turned(root):
    """A photograph on its side: 40 × 30 pixels in the file, 30 × 40 for whoever looks at it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (40, 30)).save(root / 'images/2.jpg', exif=exif)


@pytest.mark.parametrize('task, make, spoil, message', [
    ('classification', lambda r: folders(r, cat=3), None, 'has one class, cat: put the images of each class'),
    ('classification', lambda r: folders(r), lambda r: r.mkdir(), 'has no folders of classes'),
    ('classification', lambda r: folders(r, a=3, b=0), None, 'no images in .*/b; images end in'),
    ('classification', lambda r: folders(r, a=3, b=0), lambda r: (r / 'b/1.heic').write_bytes(b'x'),
     'no images in .*/b, but 1 files .heic; images end in .jpg.* convert others'),
    ('classification', lambda r: folders(r, a=3, b=1), None, 'b has one image: each class needs one to train with'),
    ('classification', lambda r: folders(r, train__a=1, train__b=1), None, 'has too few images: .*each class'),
    ('classification', lambda r: folders(r, train__a=1, train__b=1, val__c=1), None,
     'val has classes that .*train lacks: c; name the folders alike'),
    ('classification', lambda r: folders(r, train__a=1, train__b=1), lambda r: picture(r / 'val/1.jpg'),
     'val has no folders of classes, as .*train has them: a, b'),
    ('detection', lambda r: folders(r, images=2), None, 'has no data for detection, which needs a COCO file'),
    ('detection', lambda r: coco_root(r, annotations=[]), None, 'has nothing to train with: no image has a label'),
    ('detection', lambda r: coco_root(r, images=[], annotations=[]), None, 'all.json has no images'),
    ('detection', coco_root, lambda r: (r / 'annotations/all.json').write_text('{"images": ['),
     'is no whole COCO annotation file'),
    ('detection', coco_root, lambda r: shutil.rmtree(r / 'images'),
     'all.json names 10 of 10 images that are not below the data root: 0.jpg'),
    ('detection', coco_root, boxes_alone(12), '12 of 20 annotations of .*all.json have a box and no mask, the others'),
    ('detection', lambda r: coco_root(r, number=1), None, 'has too few images'),
    ('segmentation', lambda r: folders(r, images=2), None, 'no data for segmentation, which needs images with a label'),
    ('segmentation', masks_root, colour, r'masks/0.png is a colour image, and no file says'),
    ('segmentation', lambda r: masks_root(r, values=(0, 255)), names('a', 'b', 'c'),
     'and 255 means "ignore this pixel": write 1'),
    ('segmentation', lambda r: masks_root(r, values=(1, )), names('a', 'b'), 'hold the values 1: one class alone'),
    ('segmentation', masks_root, names('a', 'b'), 'values 0, 1, 2, 255, and 2 classes have names, 0 to 1 .a, b.'),
    ('segmentation', masks_root, lambda r: Image.new('L', (20, 15)).save(r / 'masks/3.png'),
     '3.png has 20 × 15 pixels and .*3.jpg has 40 × 30: a label image needs the size of its image'),
    ('segmentation', masks_root, turned, '2.png has 40 × 30 pixels and .*2.jpg has 30 × 40: '),
    ('segmentation', masks_root, names('a', 'b', 'c', encoding='utf-16'), 'classes.txt is no text in UTF-8'),
    ('segmentation', masks_root, as_jpeg, 'are JPEG .masks.0.jpg.*, which changes labels: write them as PNG'),
])
def test_mistakes_in_own_data_are_one_line(task, make, spoil, message, tmp_path):
    root = make(tmp_path / 'my')
    if spoil:
        spoil(root)
    with pytest.raises(UserError, match=message) as error:
        own(task, root)
    assert '\n' not in str(error.value)


def test_classes_with_a_mark_of_the_byte_order(tmp_path):
    root = masks_root(tmp_path / 'my')
    names('ground', 'road', 'car', encoding='utf-8-sig')(root)
    assert own('segmentation', root)[1].classes == ['ground', 'road', 'car']


def test_all_label_images_are_read_though_the_classes_have_names(tmp_path):
    root = masks_root(tmp_path / 'my', number=120)
    names('ground', 'road', 'car')(root)
    mask(root / 'masks/102.png', 0, 7)  # none of a hundred that lie evenly in between
    with pytest.raises(UserError, match='values 0, 1, 2, 7, 255, and 3 classes have names'):
        own('segmentation', root)


def test_a_flat_test_folder_is_left_out(tmp_path):
    """Kaggle's form: the classes of the test images are secret."""
    root = folders(tmp_path / 'my', train__cat=10, train__dog=5)
    picture(root / 'test/1.jpg')
    _, data = own('classification', root)
    assert data.classes == ['cat', 'dog'] and data.sizes == dict(train=12, val=3)
    assert Path(data.parts['val']['ann_file']).read_text().startswith('train/cat/')
    assert any('test has no folders of classes and is left out' in note for note in data.notes)
    assert any('a fifth of train is held back to validate' in note for note in data.notes)
    assert own('classification', folders(root, val__cat=1, val__dog=1))[1].sizes == dict(train=15, val=2)


def test_hidden_folders_are_no_data(tmp_path):
    root = folders(tmp_path / 'my', cat=5, dog=5)
    picture(root / 'cat/.ipynb_checkpoints/0-checkpoint.jpg')
    assert own('classification', root)[1].sizes == dict(train=8, val=2)


def test_images_without_objects_are_trained_with(tmp_path):
    from mmengine.registry import DATASETS, init_default_scope

    from dwnet.toolboxes.checked import with_checks
    root = coco_root(tmp_path / 'my')
    content = json.loads((root / 'annotations/all.json').read_text())
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] < 5]
    (root / 'annotations/all.json').write_text(json.dumps(content))
    cfg, data = own('detection', root)
    init_default_scope('mmdet')
    dataset = DATASETS.build(with_checks(cfg.train_dataloader.dataset))
    marked = [bool(info['instances']) for info in map(dataset.get_data_info, range(len(dataset)))]
    assert len(dataset) == data.sizes['train'] == 8 and marked.count(False) == 4
    cfg.model.backbone.init_cfg = None
    model, image = MODELS.build(cfg.model), dataset[marked.index(False)]
    batch = dict(inputs=[image['inputs']], data_samples=[image['data_samples']])
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert loss > 0 and model.rpn_head.rpn_cls.weight.grad.abs().sum() > 0


def test_no_folder():
    with pytest.raises(UserError, match='--data-root nowhere is no folder'):
        use_own_data(read_config(NANO['classification']), 'nowhere')


# --- Heads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('task', NANO)
def test_every_head_of_the_published_models_gets_the_classes(task, tmp_path):
    make = dict(classification=lambda r: folders(r, a=2, b=2, c=2), detection=functools.partial(
        coco_root, names=['a', 'b', 'c'], used=3), segmentation=masks_root)[task]
    cfg, data = own(task, make(tmp_path / 'my'), TINY)
    number = dict(classification=1, detection=6, segmentation=2)[task]  # a box and a mask head in three stages
    cfg.model.backbone.init_cfg = None
    heads = find_heads(MODELS.build(cfg.model))
    assert len(heads) == number and set(heads.values()) == {3} and len(data.classes) == 3
    if task == 'classification':
        assert cfg.model.data_preprocessor.num_classes == 3
    for part in ('train', 'val', 'test'):
        assert list(cfg[f'{part}_dataloader'].dataset.metainfo.classes) == data.classes


def test_weights_of_classes_do_not_outlive_the_classes(tmp_path):
    from dwnet.toolboxes.own_data import _set_num_classes
    cfg, _ = own('segmentation', masks_root(tmp_path / 'my'))
    assert cfg.model.decode_head.loss_decode.class_weight is None
    model = dict(panoptic_head=dict(num_things_classes=80, num_stuff_classes=0,
                                    loss_cls=dict(class_weight=[1.] * 80 + [.1])), rpn_head=dict(num_classes=1))
    _set_num_classes(model, 3)
    assert model['panoptic_head']['loss_cls']['class_weight'] == [1., 1., 1., .1]
    assert model['panoptic_head']['num_things_classes'] == 3 and model['rpn_head']['num_classes'] == 1
    model = dict(panoptic_head=dict(num_things_classes=80, num_stuff_classes=53,
                                    loss_cls=dict(class_weight=[1.] * 133 + [.1])),
                 semantic_head=dict(num_things_classes=80, num_stuff_classes=53), bbox_head=dict(num_classes=80))
    _set_num_classes(model, 3, 2)
    assert model == dict(panoptic_head=dict(num_things_classes=3, num_stuff_classes=2,
                                            loss_cls=dict(class_weight=[1.] * 5 + [.1])),
                         semantic_head=dict(num_things_classes=3, num_stuff_classes=2), bbox_head=dict(num_classes=3))


def test_classes_that_mmpretrains_own_configs_tell_the_preprocessor(tmp_path):
    cfg = copy.deepcopy(_read(NANO['classification']))
    cfg.data_preprocessor, cfg.work_dir = dict(num_classes=1000, to_rgb=True), str(tmp_path)
    use_own_data(cfg, str(folders(tmp_path / 'my', a=2, b=2)))
    assert cfg.data_preprocessor == dict(num_classes=2, to_rgb=True)


@pytest.mark.parametrize('model, metric', [
    (dict(mask_head=dict(type='SOLOHead', num_classes=80)), ['segm']),
    (dict(panoptic_head=dict(type='Mask2FormerHead', num_things_classes=80)), ['bbox', 'segm']),
    (dict(bbox_head=dict(num_classes=80), mask_head=dict(num_classes=80)), ['bbox', 'segm']),
    (dict(bbox_head=dict(num_classes=80)), ['bbox'])], ids=['SOLO', 'Mask2Former', 'CondInst', 'RetinaNet'])
def test_what_a_model_predicts_is_scored(model, metric, tmp_path):
    cfg = copy.deepcopy(_read(NANO['detection']))
    cfg.model, cfg.work_dir = model, str(tmp_path)
    use_own_data(cfg, str(coco_root(tmp_path / 'my')))
    assert cfg.val_evaluator.metric == cfg.test_evaluator.metric == metric
    assert main_score(cfg) == f'coco/{metric[0]}_mAP'


def test_the_main_metric_is_one_that_is_measured():
    def of(**evaluator) -> str:
        return main_score(Config(dict(default_scope=evaluator.pop('scope', 'mmdet'), val_evaluator=evaluator)))

    assert of(type='CocoMetric') == of(scope=None, type='mmdet.CocoMetric', metric=['segm', 'bbox']) == 'coco/bbox_mAP'
    assert of(type='CocoMetric', metric='segm') == of(type='CocoMetric', metric=['segm']) == 'coco/segm_mAP'
    assert of(type='LVISMetric') == 'lvis/bbox_AP' and of(type='LVISMetric', metric='segm') == 'lvis/segm_AP'
    assert of(type='mmseg.IoUMetric') == 'mIoU'
    assert of(scope='mmseg', type='IoUMetric', iou_metrics=['mDice']) == 'mDice'
    assert of(type=type('MyMetric', (CocoMetric, ), {})) == 'coco/bbox_mAP'
    for save_best, expected in (('lvis/segm_AP', 'lvis/segm_AP'), (['a', 'b'], 'a'), ('auto', 'mIoU'), ([], 'mIoU')):
        assert main_score(Config(dict(default_hooks=dict(checkpoint=dict(save_best=save_best)), default_scope='mmseg',
                                       val_evaluator=dict(type='IoUMetric')))) == expected
    assert main_score(Config(dict(default_hooks=dict(checkpoint=None), default_scope='mmseg',
                                   val_evaluator=dict(type='IoUMetric')))) == 'mIoU'
    with pytest.raises(UserError, match='has none of Accuracy, AveragePrecision, CocoMetric, '):
        of(type=type('CocoMetric', (), {}))
    with pytest.raises(UserError, match='val_evaluator measures proposal, and none of bbox, segm: say which score'):
        of(type='CocoMetric', metric='proposal')


@pytest.mark.parametrize('settings, monitor, rule', [
    ({}, 'accuracy/top1', 'greater'), (dict(save_best='auto'), 'accuracy/top1', 'greater'),
    (dict(save_best='loss'), 'loss', None), (dict(save_best='loss', rule='less'), 'loss', 'less'),
    (dict(save_best=['loss', 'accuracy/top1'], rule=['less', 'greater']), 'loss', 'less'),
    (dict(save_best=['accuracy/top5', 'accuracy/top1'], rule='greater'), 'accuracy/top5', 'greater')])
def test_early_stopping_goes_by_the_score_of_the_best_checkpoint(settings, monitor, rule):
    cfg = copy.deepcopy(_read(NANO['classification']))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', **settings)
    enable_early_stopping(cfg, 3)
    hook = cfg.custom_hooks[-1]
    assert (hook['monitor'], hook['rule']) == (monitor, rule)
    assert HOOKS.build(hook).rule == (rule or 'less')


# --- Options ---------------------------------------------------------------------------------------------


def arguments(root: Path, **options) -> Namespace:
    return Namespace(**dict(data_root=[str(root)], data_format=None, epochs=None, lr=None, auto_scale_lr=False,
                            cfg_options=None, balance=False) | options)


def with_own_data(tmp_path: Path, config: str = NANO['classification'], *, sgd: bool = False, **options):
    cfg = copy.deepcopy(_read(config))
    cfg.work_dir = str(tmp_path / 'work')
    if sgd:
        cfg.optim_wrapper.optimizer = ConfigDict(type='SGD', lr=cfg.optim_wrapper.optimizer.lr)
    if options.get('cfg_options'):  # as load_config does
        cfg.merge_from_dict(options['cfg_options'])
    enable_own_data(cfg, arguments(folders(tmp_path / 'my', a=10, b=10), **options))
    return cfg


def test_a_length_by_cfg_options_is_that_of_the_schedule_too(tmp_path):
    by_epochs = with_own_data(tmp_path, TINY['classification'], epochs=30)
    by_options = with_own_data(tmp_path, TINY['classification'], cfg_options={'train_cfg.max_epochs': 30})
    assert by_options.train_cfg == by_epochs.train_cfg and by_options.train_cfg.max_epochs == 30
    assert by_options.param_scheduler == by_epochs.param_scheduler and by_options.param_scheduler.warmup == 2
    with pytest.raises(UserError, match='--epochs 2 and train_cfg.max_epochs=3: leave one of them out'):
        with_own_data(tmp_path, epochs=2, cfg_options={'train_cfg.max_epochs': 3})
    for key in ('max_iters', 'max_epochs'):
        with pytest.raises(UserError, match='with --data-root say --epochs'):
            with_own_data(tmp_path, TINY['segmentation'], cfg_options={f'train_cfg.{key}': 9})


def test_what_is_said_is_what_is_trained(tmp_path, capsys, monkeypatch):
    options = {'optim_wrapper.optimizer.lr': .125, 'train_dataloader.batch_size': 4}
    with_own_data(tmp_path, cfg_options=options, epochs=3)
    assert capsys.readouterr().out.endswith('3 epochs of about 4 steps of 4 images, learning rate 0.125\n')
    adam, sgd = with_own_data(tmp_path), with_own_data(tmp_path, sgd=True)
    before = read_config(NANO['classification']).optim_wrapper.optimizer.lr
    share = adam.train_dataloader.batch_size / read_config(NANO['classification']).train_dataloader.batch_size
    assert share < 1 and adam.optim_wrapper.optimizer.lr == pytest.approx(before * share**.5, rel=.05)
    assert sgd.optim_wrapper.optimizer.lr == pytest.approx(before * share, rel=.05)
    capsys.readouterr()
    monkeypatch.setenv('RANK', '1')
    with_own_data(tmp_path, cfg_options=dict(launcher='pytorch'))
    assert capsys.readouterr().out == ''


def test_freezing_needs_weights_and_a_backbone_that_can(tmp_path):
    def frozen(cfg, resume=None) -> int:
        cfg.work_dir = str(tmp_path)
        enable_freeze(cfg, 2, resume)
        return cfg.model.backbone.frozen_stages

    cfg = read_config(NANO['classification'])
    for resume in (None, 'auto'):  # where there is nothing to resume
        with pytest.raises(UserError, match='--freeze 2 would keep random weights: name those to start from by'):
            frozen(cfg, resume)
    assert frozen(cfg, 'epoch_1.pth') == 2
    (tmp_path / 'epoch_1.pth').touch()
    assert frozen(cfg, 'auto') == 2
    cfg.load_from = 'weights.pth'
    assert frozen(cfg) == 2
    cfg.load_from, cfg.model.backbone.init_cfg = None, dict(type='Pretrained', checkpoint='weights.pth')
    assert frozen(cfg) == 2
    cfg.model.backbone = dict(type='ResNetV1d', depth=50)  # has it from ResNet
    cfg.load_from = 'weights.pth'
    assert frozen(cfg) == 2
    cfg.model.backbone = dict(type='HRNet')
    with pytest.raises(UserError, match='--freeze needs a backbone with frozen_stages, and HRNet has none'):
        frozen(cfg)
    cfg.model.pop('backbone')
    with pytest.raises(UserError, match='and this model has none'):
        frozen(cfg)


def test_epochs_of_a_training_that_counts_iterations():
    cfg = read_config(TINY['segmentation'])
    set_epochs(cfg, 20, samples=100)  # batches of two
    assert cfg.train_cfg.max_iters == 1000 and cfg.train_cfg.val_interval == 50
    assert cfg.default_hooks.checkpoint.interval == 50
    warmup, decay = cfg.param_scheduler
    assert (warmup.begin, warmup.end) == (0, round(1501 / 160)) and decay.end == round(160001 / 160)


def test_epochs_of_a_training_that_counts_epochs():
    cfg = read_config(TINY['detection'])
    cfg.custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=30), dict(type='EMAHook', begin_iter=7)]
    cfg.train_cfg.val_begin = 18
    set_epochs(cfg, 12, samples=100)  # 50 steps an epoch
    assert cfg.custom_hooks[0].switch_epoch == 10 and cfg.custom_hooks[1].begin_iter == 7
    assert cfg.train_cfg.val_begin == 6
    warmup, decay = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == 12 and decay.milestones == [9, 11] and decay.end == 12
    assert warmup.end == 60  # a tenth of 600 steps, not 501 of them
    cfg = read_config(TINY['classification'])
    cfg.default_scope = 'mmpretrain'
    set_epochs(cfg, 30, samples=1_281_167)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.warmup) == (30, 2)
    with pytest.raises(UserError, match='one epoch at least'):
        set_epochs(cfg, 0, samples=9)


@pytest.mark.parametrize('task', NANO)
def test_layer_decay_in_every_task(task):
    cfg = read_config(NANO[task])
    enable_layer_decay(cfg, .5)
    if task != 'segmentation':  # PolyLR knows no such ratio
        assert cfg.param_scheduler[1].eta_min_ratio == pytest.approx(1e-5 / cfg.optim_wrapper.optimizer.lr)
    assert 'eta_min' not in cfg.param_scheduler[1]
    cfg.model.backbone.frozen_stages = 0
    model = MODELS.build(cfg.model)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(
        type=cfg.optim_wrapper.constructor, optim_wrapper_cfg=dict(type='OptimWrapper',
                                                                   optimizer=cfg.optim_wrapper.optimizer),
        paramwise_cfg=cfg.optim_wrapper.paramwise_cfg))
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(group['params'][0])]: group['lr'] / cfg.optim_wrapper.optimizer.lr
             for group in constructor(model).optimizer.param_groups}
    assert rates.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith('backbone.patch_embed') for name in rates)  # is frozen
    depths = {'backbone.stages.0.blocks.0': 1, 'backbone.stages.1.downsample': 2, 'backbone.stages.1.blocks.0': 2,
              'backbone.stages.2.downsample': 3, 'backbone.stages.2.blocks.0': 3, 'backbone.stages.2.blocks.1': 4,
              'backbone.stages.3.downsample': 5, 'backbone.stages.3.blocks.0': 5}
    for name, rate in rates.items():
        depth = next((depth for start, depth in depths.items() if name.startswith(f'{start}.')), 6)
        assert rate == pytest.approx(.5 ** (6 - depth)), name
    weight_decays = {group.get('weight_decay') for group in constructor(model).optimizer.param_groups}
    assert (0. in weight_decays) == (task == 'classification')  # its other settings still count


def test_depths_of_the_backbone():
    backbone = DWNet('tiny')
    assert backbone.get_layer_depth('patch_embed.proj.weight') == (0, 14)
    assert backbone.get_layer_depth('backbone.stages.3.blocks.1.bn.weight', 'backbone.') == (12, 14)
    assert backbone.get_layer_depth('backbone.norms.ln3.weight', 'backbone.') == (13, 14)
    assert backbone.get_layer_depth('head.fc.weight', 'backbone.') == (13, 14)
    found = {backbone.get_layer_depth(name)[0] for name, _ in backbone.named_parameters()}
    assert found == set(range(14))


def test_layer_decay_needs_a_backbone_that_knows_its_depths():
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(2, 2)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(
        type='LayerDecayConstructor', optim_wrapper_cfg=dict(optimizer=dict(type='SGD', lr=1.)),
        paramwise_cfg=dict(layer_decay_rate=.8)))
    with pytest.raises(UserError, match='get_layer_depth, and Linear has none; leave --layer-decay out'):
        constructor(model)


def test_a_resumed_average_ends_bit_identical(tmp_path):
    cfg = read_config(NANO['classification'])
    enable_ema(cfg)
    ema = cfg.custom_hooks[-1].to_dict()
    with pytest.raises(UserError, match='averages the weights already'):
        enable_ema(cfg)
    whole = runner_for(tmp_path / 'whole', ema=ema)
    whole.train()
    with pytest.raises(InterruptedError):
        runner_for(tmp_path / 'cut', hooks=[Stop(8)], ema=ema).train()
    resumed = runner_for(tmp_path / 'cut', resume=True, ema=ema)
    resumed.train()
    state = state_of(whole)
    assert same(state, state_of(resumed))
    assert not torch.equal(state['layers.0.weight'], state['ema.module.layers.0.weight'])
    assert not torch.equal(state['layers.1.running_mean'], state['ema.module.layers.1.running_mean'])
    saved = read_checkpoint(tmp_path / 'cut/iter_15.pth')['state_dict']  # what a test loads is the average
    assert not torch.equal(saved['layers.0.weight'], state['layers.0.weight'])


@pytest.mark.parametrize('kill', [0, 3, 4])
def test_early_stopping_counts_on_after_a_kill(kill, tmp_path):
    """Scores 1, 3, 3, 2, 9: two in a row are no better than 3, so the training ends after the fourth epoch."""
    cfg = read_config(NANO['classification'])
    enable_early_stopping(cfg, 2)
    assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'
    hook = {**cfg.custom_hooks[-1].to_dict(), 'monitor': 'score'}
    options = dict(val_dataloader=dict(batch_size=4, dataset=Noise(4), sampler=dict(type='DefaultSampler',
                   shuffle=False), num_workers=0), val_cfg=dict(), workers=0)

    class Scores:
        metrics = ()
        dataset_meta = None

        def __init__(self) -> None:
            self.runner, self.seen = None, []

        def process(self, **_) -> None:
            return None

        def evaluate(self, *_) -> dict:
            self.seen.append(self.runner.epoch)
            if self.runner.epoch == kill and not (tmp_path / 'killed').exists():
                (tmp_path / 'killed').touch()
                raise InterruptedError
            return dict(score=[1, 3, 3, 2, 9, 9][self.runner.epoch - 1])

    def run(**more):
        runner = runner_for(tmp_path / 'run', hooks=[hook], val_evaluator=[], **options, **more)
        runner.train_loop._max_epochs = 6
        runner.val_loop.evaluator = Scores()
        runner.val_loop.evaluator.runner = runner
        runner.train()
        return runner

    if kill:
        with pytest.raises(InterruptedError):
            run()
        runner = run(resume=True)
    else:
        runner = run()
    assert runner.epoch == 4


@pytest.mark.parametrize('arguments, message', [
    (['--freeze', '5'], '--freeze 5: 0 freezes the stem'), (['--layer-decay', '1.5'], 'a factor above 0'),
    (['--early-stopping', '0'], '1 at least'), (['--load-from', 'nowhere.pth'], 'nowhere.pth is missing'),
    (['--data-root', 'nowhere'], 'nowhere is no folder')])
def test_mistakes_in_options(arguments, message, small_digits):
    done = run_tool('tools/train.py', NANO['classification'], *arguments, '--cfg-options', *(
        f'{part}_dataloader.dataset.data_root={small_digits}' for part in ('train', 'val')))
    assert done.returncode == 2 and message in done.stderr and done.stderr.count('\n') == 1


def test_weights_without_heads_are_for_the_backbone(tmp_path):
    classifier = MODELS.build(read_config(NANO['classification']).model)
    torch.save(classifier.state_dict(), tmp_path / 'classifier.pth')
    for task, load_from in (('classification', True), ('detection', False), ('segmentation', False)):
        cfg = read_config(NANO[task])
        start_with_new_heads(cfg, str(tmp_path / 'classifier.pth'))
        assert bool(cfg.get('load_from')) == load_from and bool(cfg.get('new_heads')) == load_from
        if not load_from:
            assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=str(tmp_path / 'classifier.pth'))
            MODELS.build(cfg.model).init_weights()


def test_weights_of_a_classifier_start_any_backbone(tmp_path):
    """mmengine's initialisation silently loads nothing if all names begin with 'backbone.'."""
    backbone = dict(type='ResNet', depth=18, num_stages=1, strides=(1, ), dilations=(1, ), out_indices=(0, ))
    cfg = read_config(NANO['detection'])
    cfg.model.backbone = backbone
    weights = MODELS.build(backbone).state_dict()
    weights = {f'backbone.{name}': torch.full_like(value, 7.) for name, value in weights.items()}
    torch.save({**weights, 'head.fc.weight': torch.ones(2, 2)}, tmp_path / 'classifier.pth')
    start_with_new_heads(cfg, str(tmp_path / 'classifier.pth'))
    built = MODELS.build(cfg.model.backbone)
    built.init_weights()
    assert (built.conv1.weight == 7).all() and (built.layer1[1].conv2.weight == 7).all()


@pytest.mark.parametrize('scope, model, names, whole', [
    ('mmdet', ['panoptic_head'], ['panoptic_head.query_feat.weight'], True),
    ('mmdet', ['encoder', 'decoder', 'bbox_head'], ['encoder.layers.0.weight', 'bbox_head.fc.weight'], True),
    ('mmdet', ['rpn_head', 'roi_head'], ['head.fc.weight'], False),
    ('mmdet', ['rpn_head', 'roi_head'], ['decode_head.conv_seg.weight'], False),
    ('mmseg', ['decode_head'], ['decode_head.conv_seg.weight'], True)])
def test_a_whole_model_is_told_from_a_classifier(scope, model, names, whole, tmp_path):
    cfg = Config(dict(default_scope=scope, model=dict(backbone=dict(type='DWNet'), **{part: {} for part in model})))
    torch.save({name: torch.ones(1) for name in ['backbone.a.weight', *names]}, tmp_path / 'weights.pth')
    start_with_new_heads(cfg, str(tmp_path / 'weights.pth'))
    assert bool(cfg.get('load_from')) == bool(cfg.get('new_heads')) == whole
    assert bool(cfg.model.backbone.get('init_cfg')) == (not whole)


def test_new_heads_are_of_one_training(tmp_path):
    """With ``new_heads`` in the written config, a test would accept weights of other classes, and guess."""
    cfg = Config(dict(model=dict(type='NoisyNet'), new_heads=True))
    runner = types.SimpleNamespace(cfg=cfg, timestamp='now', work_dir=str(tmp_path), log_dir=str(tmp_path))
    Runner.dump_config(runner)
    assert Config.fromfile(tmp_path / 'now.py').new_heads is False
    assert runner.dumped_config == tmp_path / 'now.py' and cfg.new_heads


def test_a_resumed_schedule_of_another_length_is_told(tmp_path, caplog):
    with pytest.raises(InterruptedError):
        runner_for(tmp_path / 'cut', hooks=[Stop(8)]).train()
    for length in (3, 6):
        runner = runner_for(tmp_path / 'cut', resume=True)
        runner.param_schedulers[1]['T_max'] = runner.param_schedulers[1]['end'] = length
        said = []
        runner.logger.warning = lambda line, said=said, **_: said.append(line)
        assert runner.train_loop.max_epochs == 3  # is built, and with it what is resumed is found
        runner.call_hook('before_run')
        runner.load_or_resume()
        told = [line for line in said if 'follows the schedule that the training began with' in line]
        assert len(told) == (length == 6)


def test_padding_comes_behind_the_mirror():
    cfg = read_config(NANO['detection'])
    cfg.test_dataloader.dataset.pipeline = [dict(type=name) for name in (
        'LoadImageFromFile', 'Resize', 'Pad', 'LoadAnnotations', 'PackDetInputs')]
    enable_tta(cfg)
    *before, views = cfg.test_dataloader.dataset.pipeline
    assert [step.type for step in before] == ['LoadImageFromFile', 'Resize']
    assert [[step.type for step in choices] for choices in views.transforms] == [
        ['mmdet.RandomFlip', 'mmdet.RandomFlip'], ['Pad'], ['LoadAnnotations'], ['PackDetInputs']]


@pytest.mark.parametrize('called, tool', [
    ('python -m dwnet train', 'python -m dwnet test'), ('tools/train.py', 'python tools/test.py'),
    ('/a b/tools/train.py', "python '/a b/tools/test.py'")])
def test_a_report_that_fails_hides_no_next_step(called, tool, tmp_path, monkeypatch, capsys):
    from mmengine.hooks import CheckpointHook

    from dwnet.inspect.report import report_training
    hook = CheckpointHook()
    hook.best_ckpt_path = 'w d/best.pth'
    failed = []
    monkeypatch.setattr('sys.argv', [called])
    report_training(types.SimpleNamespace(
        hooks=[hook], cfg=Config(), work_dir=str(tmp_path), dumped_config=tmp_path / 'x.py',
        logger=types.SimpleNamespace(error=failed.append)))
    assert capsys.readouterr().out == f"test with: {tool} {tmp_path}/x.py 'w d/best.pth'\n"
    assert len(failed) == 1 and failed[0].startswith('no report could be drawn: UserError: val_evaluator')


# --- As a user would -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def own_digits(small_digits, tmp_path_factory) -> types.SimpleNamespace:
    """A few digits in each of the three forms."""
    root = tmp_path_factory.mktemp('own')
    for name, digit in (('three', 3), ('seven', 7)):
        (root / 'classification' / name).mkdir(parents=True)
        for path in sorted((small_digits / f'classification/train/{digit}').iterdir())[:20]:
            shutil.copy(path, root / 'classification' / name)
    shutil.copytree(small_digits / 'scenes/train', root / 'detection/images')
    content = json.loads((small_digits / 'annotations/train.json').read_text())
    (root / 'detection/all.json').write_text(json.dumps(content))
    shutil.copytree(small_digits / 'scenes/train', root / 'segmentation/images')
    shutil.copytree(small_digits / 'labels/train', root / 'segmentation/masks')
    return root


@pytest.mark.parametrize('task', ['classification', *(
    pytest.param(task, marks=pytest.mark.long) for task in ('detection', 'segmentation'))])
def test_one_command_from_own_data_to_a_tested_model(task, own_digits, tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(MODELS.build(read_config(NANO[task]).model).state_dict(), weights)
    work_dir, options = tmp_path / 'work', ['log_level=ERROR', f'experiment_name={tmp_path.name}']
    for part in ('train', 'val', 'test'):
        options += [f'{part}_dataloader.num_workers=0', f'{part}_dataloader.persistent_workers=False']
    done = run_tool('tools/train.py', NANO[task], '--data-root', own_digits / task, '--load-from', weights, '--epochs',
                    2, '--work-dir', work_dir, '--ema', '--layer-decay', '.8', '--freeze', 1, '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    classes, steps, *_ = done.stdout.splitlines()
    number, score = dict(classification=(2, 'precision'), detection=(10, 'mask AP'), segmentation=(11, 'IoU'))[task]
    sizes = '32 to train, 8 to validate' if task == 'classification' else '20 to train, 4 to validate'
    assert f'{number} classes (' in classes and classes.endswith(f'images: {sizes}')
    assert steps.startswith('2 epochs of about ')
    command = next(line for line in done.stdout.splitlines() if line.startswith('test with: python '))
    tool, config, checkpoint = command.removeprefix('test with: python ').split()
    assert 'best_' in checkpoint and Path(config).parent == work_dir
    text = Path(config).read_text()
    (curves, predictions) = (Image.open(work_dir / name) for name in ('curves.png', 'predictions.png'))
    assert predictions.size == (6 * 256, 512) and curves.width == 1100
    page = (work_dir / 'report.html').read_text()
    assert page.count('<img') == 2 and 'the best validation' in page
    assert page.count('<tr>') == 1 + number and f'<th class=number>{score}' in page and 'few in val' in page

    name = dict(classification='accuracy/top1', detection='coco/bbox_mAP', segmentation='mIoU')[task]
    validated = [json.loads(line) for path in work_dir.glob('*/vis_data/scalars.json')
                 for line in path.read_text().splitlines()]
    assert sum(record.get('val/loss', 0) > 0 for record in validated) == 2
    for extra in ([], ['--tta']):
        options[1] = f'experiment_name={tmp_path.name}{len(extra)}'
        done = run_tool(tool, config, checkpoint, *extra, '--work-dir', work_dir, '--cfg-options', *options)
        assert done.returncode == 0, done.stderr
        scores = json.loads((work_dir / 'scores.json').read_text())
        assert name in scores and len(scores['classes']) == number
        if not extra:
            assert scores[name] == pytest.approx(max(record[name] for record in validated if name in record))
        assert Path(config).read_text() == text  # a test leaves the config of the training as it is
    assert 'coco/segm_mAP' not in scores


@pytest.mark.long
def test_a_training_that_counts_iterations(own_digits, tmp_path):
    (tmp_path / 'by_iteration.py').write_text(f"""
_base_ = '{Path(NANO['segmentation']).resolve()}'
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=16000))
param_scheduler = [dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1501),
                   dict(type='PolyLR', eta_min=0., power=1., by_epoch=False, begin=0, end=160001)]
""")
    done = run_tool('tools/train.py', tmp_path / 'by_iteration.py', '--data-root', own_digits / 'segmentation',
                    '--epochs', 3, '--early-stopping', 9, '--lr', '1e-3', '--work-dir', tmp_path, '--cfg-options',
                    f'experiment_name={tmp_path.name}', 'log_level=ERROR',
                    *(f'{part}_dataloader.{key}' for part in ('train', 'val')
                      for key in ('num_workers=0', 'persistent_workers=False')))
    assert done.returncode == 0, done.stderr
    assert '3 epochs of about 10 steps of 2 images, learning rate 0.001' in done.stdout
    assert sorted(path.name for path in tmp_path.glob('iter_*.pth')) == ['iter_20.pth', 'iter_30.pth']
    assert len(list(tmp_path.glob('best_mIoU_iter_?0.pth'))) == 1 and 'best mIoU' in done.stdout
