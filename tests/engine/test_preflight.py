"""What would stop or spoil a training is found before its first step; what is healthy causes no message."""
import copy
import json
import os
import random
import shutil
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import published_data
import pytest
import torch
from conftest import ROOT, read_config, run_command, run_python, run_tool
from mmdet.utils import reduce_mean
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.registry import HOOKS, MODELS
from PIL import Image
from test_published_recipes import make_options
from test_tools import CLASSIFICATION, CPU, DETECTION, SEGMENTATION, last_line, small
from torch import nn

from dwnet.engine import Runner, preflight
from dwnet.engine.preflight import _check_files, _reason_against_a_single_image
from dwnet.errors import UserError

TASKS = pytest.mark.parametrize('config', [CLASSIFICATION, DETECTION, SEGMENTATION],
                                ids=['classification', 'detection', 'segmentation'])


@pytest.fixture(autouse=True)
def _plain_config_dumps(monkeypatch):
    """mmengine writes each config into the work dir, and breaks its lines for seconds."""
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True), raising=False)


@pytest.fixture
def data(small_digits, tmp_path) -> Path:
    """A copy of the digits that a test may spoil."""
    return shutil.copytree(small_digits, tmp_path / 'digits')


@pytest.fixture
def make_runner(data, tmp_path):
    """A digits config, with its data in ``data`` and changed by options, → its Runner."""

    def make(config: str, options: dict | None = None) -> Runner:
        cfg = read_config(config)
        cfg.merge_from_dict({f'{part}_dataloader.dataset.data_root': str(data) for part in ('train', 'val', 'test')})
        if config == DETECTION:
            cfg.merge_from_dict({f'{part}_evaluator.ann_file': str(data / 'annotations/test.json')
                                 for part in ('val', 'test')})
        cfg.merge_from_dict({'work_dir': str(tmp_path / 'w'), 'experiment_name': uuid4().hex})
        cfg.merge_from_dict(options or {})
        return Runner.from_cfg(cfg)

    return make


@pytest.fixture
def find(make_runner, monkeypatch):
    """Config and options → the error and the warnings of the preflight."""

    def look(config: str, options: dict | None = None) -> tuple[str, list[str]]:
        return judge(make_runner(config, options), monkeypatch)

    return look


def judge(runner: Runner, monkeypatch) -> tuple[str, list[str]]:
    warnings: list[str] = []
    monkeypatch.setattr(runner.logger, 'warning', warnings.append)
    monkeypatch.setattr('dwnet.toolboxes.mmdet.coco.print_log', lambda line, **_: warnings.append(line))
    try:
        preflight.preflight(runner)
    except UserError as error:
        return str(error), warnings
    return '', [w for w in warnings if 'Found no valid file in the folder' not in w]  # mmpretrain's own


def edit(file: Path, change) -> dict:
    """Changes the content of a JSON file by a function."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return content


@TASKS
def test_the_digits_configs_pass(config, find):
    assert find(config) == ('', [])


@pytest.mark.parametrize('config, make', [
    ('configs/classification/dwnet-tiny_in1k.py', published_data.make_imagenet),
    ('configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py', published_data.make_coco),
    ('configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py', published_data.make_ade20k)])
def test_the_published_configs_pass(config, make, tmp_path, monkeypatch):
    make(tmp_path / 'data')
    cfg = read_config(config)
    lengths = Config(dict(train_cfg=cfg.train_cfg)).to_dict()
    options = make_options(cfg, tmp_path / 'data')
    cfg.merge_from_dict({key: str(value) if isinstance(value, Path) else value for key, value in options.items()})
    cfg.merge_from_dict({'work_dir': str(tmp_path / 'w'), 'experiment_name': tmp_path.name})
    cfg.merge_from_dict(lengths)
    roomy(monkeypatch, 10**15)
    assert judge(Runner.from_cfg(cfg), monkeypatch) == ('', [])


# --- Classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('config, option, message', [
    (CLASSIFICATION, 'model.head.num_classes',
     'model.head: num_classes=7, and the train and val data have 10 (0, 1, 2, 3, 4, …); set num_classes=10'),
    (DETECTION, 'model.roi_head.bbox_head.1.num_classes',
     'model.roi_head.bbox_head.1: num_classes=7, and the train and val data have 10'),
    (DETECTION, 'model.roi_head.mask_head.num_classes',
     'model.roi_head.mask_head.0, model.roi_head.mask_head.1, model.roi_head.mask_head.2: num_classes=7'),
    (SEGMENTATION, 'model.decode_head.num_classes',
     'model.decode_head: num_classes=7, and the train and val data have 11 (ground, 0, 1, 2, 3, …)'),
    (SEGMENTATION, 'model.auxiliary_head.num_classes', 'model.auxiliary_head: num_classes=7')])
def test_heads_of_too_few_classes(config, option, message, find):
    assert message in find(config, {option: 7})[0]


def test_heads_of_more_classes(find):
    """More classes may be intended, but not in a box head, whose labels COCO's metric looks up."""
    error, warnings = find(CLASSIFICATION, {'model.head.num_classes': 12})
    assert error == '' and len(warnings) == 1 and 'model.head: num_classes=12' in warnings[0]
    assert 'num_classes=80' in find(DETECTION, {'model.roi_head.bbox_head.0.num_classes': 80})[0]


def test_several_findings_are_listed_at_once(find):
    error, _ = find(SEGMENTATION, {'model.decode_head.num_classes': 7, 'model.auxiliary_head.num_classes': 8})
    first, *others = error.split('\n- ')
    assert first == f'{len(others)} things stand in the way'
    assert sum('num_classes=7,' in o for o in others) == sum('num_classes=8,' in o for o in others) == 1


def test_folders_that_differ_between_training_and_validation(data, find):
    (data / 'classification/test/9').rename(data / 'classification/test/nine')
    error, _ = find(CLASSIFICATION)
    assert error == ('train and val data have different classes, so a label means different things (only train has 9; '
                     'only val has nine); give them the same folders or metainfo.classes')


def write_list(data: Path, *lines: str) -> dict:
    """An annotation file of mmpretrain for the training data; returns the options that take it."""
    names = [f'{path.parent.name}/{path.name} {path.parent.name}'
             for path in sorted((data / 'classification/train').glob('*/*.jpg'))[:40]]
    (data / 'train.txt').write_text('\n'.join([*names, *lines]))
    return {'train_dataloader.dataset.ann_file': 'train.txt', 'train_dataloader.batch_size': 8}


def test_labels_of_a_list_beyond_the_head(data, find):
    assert find(CLASSIFICATION, write_list(data)) == ('', [])
    name = next((data / 'classification/train/3').iterdir()).name
    error, _ = find(CLASSIFICATION, write_list(data, f'3/{name} 10', f'3/{name} -1'))
    image = data / 'classification/train/3' / name
    assert f'2 labels of the train data in {data}/train.txt are not in 0…9: 10 of {image}, -1 of {image}; mend' in error


def test_labels_of_pixels_beyond_the_head(data, find):
    path = data / 'labels/train/00000.png'
    labels = np.array(Image.open(path))
    labels[3, 4], labels[0, 0] = 11, 255  # 255 is ignored
    Image.fromarray(labels).save(path)
    error, _ = find(SEGMENTATION)
    assert f'labels of the train data are not in 0…10: 11 in {path}; mend them, or set num_classes' in error
    assert find(SEGMENTATION, {'train_dataloader.dataset.reduce_zero_label': True}) == ('', [])


# --- COCO ------------------------------------------------------------------------------------------------


def test_categories_that_the_file_lacks(data, find):
    file = data / 'annotations/train.json'
    edit(file, lambda c: c['categories'][3].update(name='three'))
    error, warnings = find(DETECTION)
    assert error == '' and warnings[0] == (
        f"{file} has no categories 3 (1 of the data set's 10 classes): these classes have no objects there")
    assert warnings[1].endswith('as the data set does not have their categories in metainfo.classes: three')


def test_classes_of_another_data_set(data, find):
    """As where metainfo is forgotten: mmdet then finds no image and fails with a message about arrays."""
    names = {f'{part}_dataloader.dataset.metainfo': dict(classes=('cat', 'dog')) for part in ('train', 'val')}
    error, _ = find(DETECTION, names)
    file = data / 'annotations/train.json'
    assert f"{file} has none of the data set's classes cat, dog, but 0, 1, 2" in error and 'metainfo.classes' in error


def test_categories_that_are_left_out(data, find):
    for part in ('train', 'test'):
        edit(data / f'annotations/{part}.json', lambda c: c['categories'].append(dict(id=77, name='seal')))
    assert find(DETECTION) == ('', []), 'without annotations it does not matter'
    for part in ('train', 'test'):
        edit(data / f'annotations/{part}.json', lambda c: c['annotations'][0].update(category_id=77))
    assert find(DETECTION) == ('', [
        f'1 annotations of {data}/annotations/{part}.json are left out, as the data set does not have their categories '
        'in metainfo.classes: seal' for part in ('train', 'test')])


def test_order_of_categories(data, find):
    """Labels follow the names, so the order does not matter."""
    edit(data / 'annotations/train.json', lambda c: c['categories'].reverse())
    assert find(DETECTION) == ('', [])


@pytest.mark.parametrize('tag, said', [
    (6, 'width and height of their annotations are those before the turn: boxes and masks are turned, too'),
    (3, 'width and height do not tell whether their annotations are of the pixels before the turn or behind it: '
     'behind it is assumed; look at some by browse_dataset'), (1, '')])
def test_photographs_that_exif_turns(tag, said, data, find):
    exif = Image.Exif()
    exif[0x112] = tag
    content = edit(data / 'annotations/train.json', lambda c: [image.update(width=160) for image in c['images'][:3]])
    for image in content['images'][:3]:
        Image.new('RGB', (160, image['height'])).save(data / 'scenes/train' / image['file_name'], exif=exif)
    edit(data / 'annotations/train.json', lambda c: [
        a.update(bbox=[1, 2, 9, 9], segmentation=[[1, 2, 9, 2, 9, 9]]) for a in c['annotations'] if a['image_id'] < 3])
    error, warnings = find(DETECTION)
    assert error == '' and warnings == [
        f'EXIF turns 3 of 24 images that were looked at in the train data, and {said}'] * bool(said)


@pytest.mark.parametrize('harm', ['truncated', 'no list'])
def test_a_damaged_annotation_file(harm, data, find):
    file = data / 'annotations/train.json'
    if harm == 'truncated':
        file.write_text(file.read_text()[:-20])
    else:
        edit(file, lambda c: c.pop('images'))
    error, _ = find(DETECTION)
    assert f'{file} is no whole COCO annotation file' in error and '\n' not in error


def test_mmdet_reads_as_before(make_runner):
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.api_wrappers import COCO
    runner = make_runner(DETECTION)
    preflight.preflight(runner)
    assert CocoDataset.COCOAPI is COCO and len(runner.train_dataloader.dataset) == 24


# --- Files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('config, file', [
    (DETECTION, 'scenes/train/00003.jpg'), (SEGMENTATION, 'labels/test/00002.png'),
    (SEGMENTATION, 'scenes/train/00001.jpg')])
def test_files_that_are_missing_or_empty(config, file, data, find):
    total = (24 if 'train' in file else 9) * (2 if config == SEGMENTATION else 1)
    part = 'train' if 'train' in file else 'val'
    (data / file).write_bytes(b'')
    found = f'1 of {total} files of the {part} data are {{}}: {data}/{file}; put them there again, or take them out'
    assert found.format('empty') in find(config)[0]
    if 'scenes' in file and config == SEGMENTATION:
        return  # mmseg takes the images that there are
    (data / file).unlink()
    assert found.format('missing') in find(config)[0]


def truncate(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-9])
    return file


@pytest.mark.parametrize('config, file', [(CLASSIFICATION, 'classification/test/7'), (SEGMENTATION, 'labels/test')])
def test_damaged_files_of_the_validation_stop_the_training(config, file, data, find):
    damaged = truncate(next((data / file).iterdir()))
    total = 450 if config == CLASSIFICATION else 18
    assert find(config) == (f'1 of {total} files of the val data are damaged: {damaged} (its end is missing); put them '
                            'there again, or take them out of the data set', [])


def test_a_few_damaged_files_of_the_training_are_left_out(data, find):
    files = sorted((data / 'labels/train').iterdir())
    damaged = [truncate(file) for file in files[:10]]
    error, warnings = find(SEGMENTATION)
    assert error == '' and warnings == ['10 of 48 files of the train data are damaged: ' + ', '.join(
        f'{file} (its end is missing)' for file in damaged[:5]) + ', …; the training leaves them out']
    truncate(files[10])
    assert '11 of 48 files of the train data are damaged: ' in find(SEGMENTATION)[0]


def test_test_data_of_their_own_are_looked_at(data, find):
    own = {'test_dataloader.dataset.data_prefix': 'classification/train'}
    damaged = truncate(next((data / 'classification/train/7').iterdir()))
    error, warnings = find(CLASSIFICATION, own)
    assert f'of the test data are damaged: {damaged} (its end is missing); put them there' in error
    assert warnings == [f'1 of 1347 files of the train data are damaged: {damaged} (its end is missing); the training '
                        'leaves them out']
    error, (warning, *_) = find(CLASSIFICATION, {'test_dataloader.dataset.data_root': '/nowhere'})
    assert error == '' and warning.startswith('the test data cannot be read (')


def test_a_test_looks_at_its_files(data, make_runner):
    runner = make_runner(DETECTION)
    preflight.check_test_files(runner)
    damaged = truncate(data / 'scenes/test/00003.jpg')
    with pytest.raises(UserError, match=f'^1 of 9 files of the test data are damaged: {damaged}'):
        preflight.check_test_files(runner)


def test_data_that_cannot_be_built(data, find):
    shutil.rmtree(data / 'classification/train/4')
    classes = dict(classes=list('0123456789'))
    error, _ = find(CLASSIFICATION, {'train_dataloader.dataset.metainfo': classes})
    assert error.startswith('the data cannot be read: AssertionError: ') and 'subfolders (9)' in error


# --- Paths out of the data root --------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['../../../../../../../../../etc/passwd', '/etc/passwd', '../../../secret/x.jpg'])
def test_paths_that_leave_the_data_root(name, data, find):
    file = data / 'annotations/train.json'
    edit(file, lambda c: c['images'][7].update(file_name=name))
    error, _ = find(DETECTION)
    path = os.path.join(data, 'scenes/train', name)
    assert f'{file} names 1 files outside the data root {data}: {path}; do not trust it, or, if' in error
    error, _ = find(CLASSIFICATION, write_list(data, f'{name} 3'))
    assert f'{data}/train.txt names 1 files outside the data root {data}: ' in error and error.count('passwd\n') == 0


def test_paths_that_stay_in_the_data_root(data, tmp_path, find):
    edit(data / 'annotations/train.json', lambda c: [
        c['images'][0].update(file_name=str(data / 'scenes/train/00000.jpg')),
        c['images'][1].update(file_name='../train/./00001.jpg')])
    assert find(DETECTION) == ('', [])
    (tmp_path / 'link').symlink_to(data)
    linked = {f'{part}_dataloader.dataset.data_root': str(tmp_path / 'link') for part in ('train', 'val')}
    assert find(CLASSIFICATION, {**write_list(data), **linked}) == ('', [])
    os.chdir(tmp_path)  # as usual in configs: relative to where one is
    relative = {f'{part}_dataloader.dataset.data_root': 'digits' for part in ('train', 'val')}
    assert find(str(ROOT / CLASSIFICATION), {**write_list(data), **relative}) == ('', [])


# --- Weights ---------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_found_before_the_data_are_read(make_runner, tmp_path, monkeypatch):
    other = MODELS.build(read_config(CLASSIFICATION).model)
    torch.save(dict(state_dict={**other.state_dict(), 'head.fc.bias': torch.zeros(5)}), tmp_path / 'x.pth')
    backbone = {f'backbone.{key}': value for key, value in other.backbone.state_dict().items()}
    backbone.pop('backbone.patch_embed.proj.weight')
    torch.save(dict(state_dict=backbone), tmp_path / 'b.pth')
    init = 'model.backbone.init_cfg'
    for option, value, message in (
            ('load_from', str(tmp_path / 'x.pth'), 'head.fc.bias (5,) for (10,)'),
            ('load_from', str(tmp_path / 'none.pth'), 'none.pth are missing'),
            (init, dict(type='Pretrained', checkpoint=str(tmp_path / 'b.pth')), 'lacks 1 of'),
            (init, dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth')), 'none.pth are missing'),
            ('model.neck.init_cfg', dict(type='Pretrained', checkpoint='none.pth'), 'weights none.pth are missing')):
        runner = make_runner(CLASSIFICATION, {option: value} if option != 'model.neck.init_cfg' else None)
        if option == 'model.neck.init_cfg':
            runner.model.neck.init_cfg = value
        before = copy.deepcopy(runner.model.state_dict())
        assert message in judge(runner, monkeypatch)[0], option
        assert isinstance(runner._train_loop, dict), 'the data are not read yet'
        assert all(torch.equal(a, b) for a, b in zip(before.values(), runner.model.state_dict().values()))


def test_weights_that_fit_are_not_loaded_yet(make_runner, tmp_path, monkeypatch):
    other = MODELS.build(read_config(CLASSIFICATION).model)
    torch.save(dict(state_dict={key: value + 1 for key, value in other.state_dict().items()}), tmp_path / 'x.pth')
    runner = make_runner(CLASSIFICATION, dict(load_from=str(tmp_path / 'x.pth')))
    before = copy.deepcopy(runner.model.state_dict())
    assert judge(runner, monkeypatch) == ('', [])
    assert all(torch.equal(a, b) for a, b in zip(before.values(), runner.model.state_dict().values()))


# --- Disk ------------------------------------------------------------------------------------------------


def roomy(monkeypatch, free: int) -> None:
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: namedtuple('usage', 'total used free')(0, 0, int(free)))


def test_room_for_the_checkpoints(make_runner, tmp_path, monkeypatch):
    def found(free: float, **options):
        roomy(monkeypatch, free)
        return judge(make_runner(CLASSIFICATION, {k.replace('__', '.'): v for k, v in options.items()}), monkeypatch)

    model = MODELS.build(read_config(CLASSIFICATION).model)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.save(dict(state_dict=model.state_dict(), optimizer=optimizer.state_dict()), tmp_path / 'real.pth')
    size = os.path.getsize(tmp_path / 'real.pth')

    # 2 are kept, and one more while it is written
    assert found(3.05 * size) == ('', [])
    error, warnings = found(2.9 * size)
    assert error == '' and len(warnings) == 1 and f'this training holds up to 3 of {size / 1e9:.2g}' in warnings[0]
    error, warnings = found(1.9 * size)
    assert f'{tmp_path}/w has room for {1.9 * size / 1e9:.3g} GB of checkpoints' in error and not warnings
    # all of 10 epochs; and one alone
    assert 'up to 10 of' in found(9 * size, default_hooks__checkpoint__max_keep_ckpts=-1)[1][0]
    assert found(1.1 * size, train_cfg__max_epochs=1, train_cfg__val_interval=1) == ('', [])
    # a moving average is one more set of weights; without the optimiser's state there is less
    average = [dict(type='EMAHook')]
    assert 'up to 3 of' in found(3.3 * size, custom_hooks=average)[1][0]
    assert found(4.1 * size, custom_hooks=average) == ('', [])
    assert found(1.2 * size, default_hooks__checkpoint__save_optimizer=False) == ('', [])
    # those that are there make room in their turn
    with open(tmp_path / 'w/epoch_1.pth', 'wb') as file:
        file.truncate(2 * size)
    assert found(1.1 * size) == ('', [])


# --- Batches of one image --------------------------------------------------------------------------------


@pytest.mark.parametrize('config, options, message', [
    (SEGMENTATION, {'train_dataloader.batch_size': 1}, 'each batch has one image a process, and this model cannot be '
     'trained so (ValueError: Expected more than 1 value per channel when training'),
    (CLASSIFICATION, {'train_dataloader.batch_size': 1}, ''),  # its BatchNorms see several positions
    (CLASSIFICATION, {'train_dataloader.batch_size': 1, 'model.backbone.token_mixer': 'dynamic'}, 'each batch has one'),
    (CLASSIFICATION, {'train_dataloader.batch_size': 2, 'train_dataloader.drop_last': False,
                      'model.backbone.token_mixer': 'dynamic'}, 'the last batch of an epoch has one image a process'),
    (CLASSIFICATION, {'train_dataloader.batch_size': 2, 'model.backbone.token_mixer': 'dynamic'}, ''),
    (CLASSIFICATION, {'train_dataloader.batch_size': 4, 'train_dataloader.drop_last': False,
                      'model.backbone.token_mixer': 'dynamic'}, ''),  # 1347 = 4·336 + 3
    (DETECTION, {'train_dataloader.batch_size': 1}, '')])
def test_batches_of_one_image(config, options, message, make_runner, monkeypatch):
    runner = make_runner(config, options)
    before = copy.deepcopy(runner.model.state_dict())
    torch.manual_seed(5), np.random.seed(6), random.seed(7)
    error, _ = judge(runner, monkeypatch)
    drawn = torch.rand(1), np.random.rand(), random.random()
    assert message in error and bool(error) == bool(message), error
    torch.manual_seed(5), np.random.seed(6), random.seed(7)
    assert drawn == (torch.rand(1), np.random.rand(), random.random())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), runner.model.state_dict().values()))


@pytest.mark.parametrize('config, options, message', [
    (CLASSIFICATION, {'train_dataloader.drop_last': True}, 'set drop_last=False in train_dataloader'),
    (CLASSIFICATION, {'train_dataloader.drop_last': False}, ''),
    (CLASSIFICATION, {'train_dataloader.drop_last': True, 'train_dataloader.sampler.type': 'InfiniteSampler'}, ''),
    (DETECTION, {'train_dataloader.drop_last': False, 'train_dataloader.batch_sampler': dict(
        type='AspectRatioBatchSampler', drop_last=True)}, 'or in its batch_sampler'),
    (DETECTION, {'train_dataloader.drop_last': False, 'train_dataloader.batch_sampler': dict(
        type='AspectRatioBatchSampler')}, '')])
def test_fewer_samples_than_a_batch(config, options, message, find):
    error, _ = find(config, {'train_dataloader.batch_size': 2000, **options})
    assert message in error and bool(error) == bool(message), error
    if message:
        assert error.startswith('the training data make no batch: there are ') and 'fewer than 2000; lower' in error


@pytest.mark.parametrize('option', ['activation_checkpointing', 'channels_last', 'CompileHook'])
def test_the_model_stays_bit_equal(option, make_runner, monkeypatch):
    """Options replace a module's ``forward``; in the preflight's copy it must not reach the original's buffers."""
    options = dict(activation_checkpointing=['backbone.stages.0', 'backbone.stages.2'], channels_last=True)
    runner = make_runner(CLASSIFICATION, {
        'train_dataloader.batch_size': 1, **({option: options[option]} if option in options else {})})
    if option not in options:
        HOOKS.build(dict(type=option)).before_run(runner)
    before = copy.deepcopy(runner.model.state_dict())
    assert not judge(runner, monkeypatch)[0]
    after = runner.model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not changed and before.keys() == after.keys(), changed


def test_the_metric_is_that_of_the_data_set(make_runner):
    runner = make_runner(DETECTION)
    kinds = []
    for dataset in ('CocoDataset', 'CityscapesDataset'):
        for part in ('val', 'test'):
            runner.cfg[f'{part}_dataloader'].dataset.type = dataset
        kinds.append(type(runner.build_evaluator(copy.deepcopy(runner.cfg.val_evaluator)).metrics[0]).__name__)
    assert kinds == ['CheckedCocoMetric', 'CocoMetric']


def test_one_process_tries_alone(monkeypatch):
    """Rank 0 tries a batch while the other ranks wait, so mmdet's heads must not average over the processes."""
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def data_preprocessor(self, batch, training):
            return dict(x=batch[0])

        def forward(self, x, mode):
            assert reduce_mean(x).shape == x.shape
            return self.norm(x)

    monkeypatch.setattr('mmdet.utils.dist_utils.dist.all_reduce', lambda *_, **__: pytest.fail('it waited for others'))
    loader = torch.utils.data.DataLoader([torch.ones(1, 1, 1, 1)], collate_fn=list)
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert 'Expected more than 1 value per channel' in _reason_against_a_single_image(loader, Head())
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_test_data_are_built_alone(monkeypatch, tmp_path):
    """mmpretrain's CIFAR10 waits for the other processes, which build no test data in a training."""
    monkeypatch.setattr('mmengine.dist.dist.torch_dist.barrier', lambda *_: pytest.fail('it waited for others'))
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type=Waiting))))
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert not [*_check_files(SimpleNamespace(cfg=cfg, work_dir=str(tmp_path)), {}, {})]
    finally:
        torch.distributed.destroy_process_group()


class Waiting(list):
    def __init__(self) -> None:
        super().__init__()
        barrier()


# --- Validation ------------------------------------------------------------------------------------------


def test_truth_of_another_data_set(data, tmp_path, find):
    own = data / 'annotations/test.json'
    both = f'val_evaluator.ann_file={{}} does not fit the val data of {own}'
    shutil.copy(own, tmp_path / 'same.json')
    assert find(DETECTION, {'val_evaluator.ann_file': str(tmp_path / 'same.json')}) == ('', [])
    less = edit(Path(shutil.copy(own, tmp_path / 'less.json')), lambda c: c['images'].pop())
    assert len(less['images']) == 8
    error, _ = find(DETECTION, {'val_evaluator.ann_file': str(tmp_path / 'less.json')})
    assert f"{both.format(tmp_path / 'less.json')}: it lacks 1 of their 9 images; name the same file in both" in error
    edit(Path(shutil.copy(own, tmp_path / 'named.json')), lambda c: c['categories'][0].update(name='zero'))
    error, _ = find(DETECTION, {'val_evaluator.ann_file': str(tmp_path / 'named.json')})
    assert f"{both.format(tmp_path / 'named.json')}: its categories differ, or their order; name" in error
    error, warnings = find(DETECTION, {'val_dataloader.dataset.indices': 5})
    assert error == '' and warnings == [
        f'{both.format(own)}: it has 4 more images; name the same file in both']


@pytest.mark.parametrize('setting, meaning', [('val_begin', 'never'), ('val_interval', 'only at its end')])
def test_a_validation_that_does_not_come(setting, meaning, find):
    error, warnings = find(CLASSIFICATION, {f'train_cfg.{setting}': 11})
    assert error == '' and warnings == [
        f'this training is validated {meaning}: train_cfg.{setting}=11, but max_epochs=10']


# --- The command line, and several processes -------------------------------------------------------------


def test_check_looks_and_does_not_train(data, tmp_path):
    options = [*small(CLASSIFICATION, data), f'experiment_name={tmp_path.name}']
    done = run_tool('tools/train.py', CLASSIFICATION, '--check', '--work-dir', tmp_path / 'w', *options)
    assert done.returncode == 0 and 'nothing was found that would stop this training' in done.stdout
    assert not list((tmp_path / 'w').glob('*.pth'))
    options += ['model.head.num_classes=9', f'experiment_name={tmp_path.name}2']
    done = run_tool('tools/train.py', CLASSIFICATION, '--work-dir', tmp_path / 'w', *options)
    assert done.returncode == 2 and 'error: model.head: num_classes=9' in last_line(done)


def processes_with(text: str) -> list[str]:
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            command = path.read_bytes().replace(b'\0', b' ').decode(errors='replace')
        except OSError:  # gone meanwhile
            continue
        if text in command:
            found.append(command)
    return found


BROKEN = """
import os
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

@DATASETS.register_module()
class Broken(CustomDataset):
    seen = 0

    def prepare_data(self, index):
        Broken.seen += 1
        if os.environ['RANK'] == '1' and Broken.seen > 80:
            raise ValueError('this picture is broken')
        return super().prepare_data(index)
"""


@pytest.mark.long
@pytest.mark.parametrize('workers', [0, 2])
def test_an_error_in_the_data_of_one_process_ends_all(workers, data, tmp_path):
    (tmp_path / 'broken_data.py').write_text(BROKEN)
    (tmp_path / 'config.py').write_text(f"""
_base_ = {str(ROOT / CLASSIFICATION)!r}
custom_imports = dict(imports=['broken_data'])
train_dataloader = dict(dataset=dict(type='Broken'), num_workers={workers}, persistent_workers={workers > 0})
""")
    options = small(CLASSIFICATION, data)
    start = time.monotonic()
    done = run_command('bash', 'tools/dist_train.sh', tmp_path / 'config.py', '2', '--work-dir', tmp_path / 'w',
                       *options, check=False, **CPU, PYTHONPATH=f'{ROOT}:{tmp_path}')
    assert done.returncode != 0 and time.monotonic() - start < 60
    launcher = done.stderr.split('Root Cause')[-1]
    assert 'rank      : 1' in launcher and 'ValueError: this picture is broken' in launcher
    assert not processes_with(str(tmp_path))


@pytest.mark.long
def test_all_processes_end_with_what_the_first_finds(data, tmp_path):
    options = [*small(CLASSIFICATION, data), 'model.head.num_classes=9']
    done = run_command('bash', 'tools/dist_train.sh', CLASSIFICATION, '2', '--work-dir', tmp_path / 'w', *options,
                       check=False, **CPU)
    assert done.returncode != 0 and 'error: model.head: num_classes=9' in done.stderr
    assert 'exitcode  : 2' in done.stderr and not processes_with(str(tmp_path))


def test_a_killed_worker_is_explained(tmp_path):
    (tmp_path / 'killed.py').write_text("""
import os, signal
from torch.utils.data import DataLoader, Dataset
from dwnet.engine.exit_codes import run_command

class Killed(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == '__main__':  # a worker that is not forked imports this file
    run_command(lambda: list(DataLoader(Killed(), num_workers=1)))
""")
    done = run_python(tmp_path / 'killed.py', check=False)
    assert done.returncode == 1 and last_line(done).startswith('error: RuntimeError: DataLoader worker (pid')
    assert 'RAM or shared memory runs out' in last_line(done) and 'Traceback' not in done.stderr


def test_an_error_inside_a_worker_is_no_killed_worker(tmp_path):
    (tmp_path / 'raising.py').write_text("""
from torch.utils.data import DataLoader, Dataset
from dwnet.engine.exit_codes import run_command

class Raising(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        raise RuntimeError('my own')

if __name__ == '__main__':
    run_command(lambda: list(DataLoader(Raising(), num_workers=1)))
""")
    done = run_python(tmp_path / 'raising.py', check=False)
    assert done.returncode == 1 and 'Traceback' in done.stderr and last_line(done) == 'RuntimeError: my own'
