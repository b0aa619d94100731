"""mmyolo: DWNet in its configs, its data with our checks, training, prediction and what is refused."""
import copy
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_config, run_python, run_tool
from mmengine.hub import get_config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image
from scenes import NAMES, Scene, box_of, make_scenes, table_of_coco, write_picture
from stock_configs import SMALL, train_and_predict

from dwnet.apis import swap_backbone
from dwnet.commands.options.fine_tuning import set_epochs
from dwnet.errors import UserError
from dwnet.toolboxes import TOOLBOXES, toolbox_of
from dwnet.toolboxes.checked import with_checks

NANO = 'configs/detection/yolov8_dwnet-nano_digits.py'
read = functools.cache(read_config)


def test_a_stock_config_in_a_fresh_process():
    """Without custom_imports, beside a newer mmcv than mmyolo asserts."""
    code = """
import dwnet, torch
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
cfg = get_config('mmyolo::yolox/yolox_s_fast_8xb8-300e_coco.py')
cfg.model.backbone = dict(type='dwnet.DWNet', arch='tiny', out_indices=(1, 2, 3))
cfg.model.neck.in_channels = [2 * channels for channels in (192, 384, 768)]  # widen_factor is 1/2
init_default_scope('mmyolo')
model = MODELS.build(cfg.model).train()
boxes = torch.tensor([[0., 5., 8., 8., 40., 40.], [1., 7., 20., 4., 60., 60.]])
loss, _ = model.parse_losses(model.loss(
    torch.rand(2, 3, 64, 64), dict(bboxes_labels=boxes, img_metas=[dict(batch_input_shape=(64, 64))] * 2)))
loss.backward()
print('stepped', bool(loss.isfinite()), bool(model.backbone.patch_embed.proj.weight.grad.any()))
"""
    assert 'stepped True True' in run_python('-c', code).stdout


# --- DWNet in the place of the backbone ----------------------------------------------------------------

PARTS = ['YOLOv5PAFPN', 'YOLOv8PAFPN', 'YOLOv8HeadModule', 'YOLOXPAFPN', 'CSPNeXtPAFPN', 'YOLOv6RepPAFPN']


@pytest.mark.parametrize('kind', PARTS)
@pytest.mark.parametrize('widen_factor', [.25, .375, .5, .75, 1., 1.25, 1.33])
def test_stated_channels_give_the_channels_that_are_taken(kind, widen_factor):
    toolbox = TOOLBOXES['mmyolo']
    toolbox.load()
    part = dict(type=kind, widen_factor=widen_factor)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        for channels in (32, 96, 192, 256, 384, 768, 1024):
            assert toolbox.channels_taken(part, toolbox.channels_to_state(part, channels)) == channels
    assert toolbox.channels_taken(dict(type=kind), 100) == toolbox.channels_to_state(dict(type=kind), 100) == 100


YOLOV5_P6 = dict(type='dwnet.ExtraMaps', channels=768, number=1)
CHANNELS = {  # what is set
    'yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py': {
        'neck.in_channels': [384, 768, 1536], 'neck.out_channels': [384, 768, 1536],
        'bbox_head.head_module.in_channels': [384, 768, 1536]},
    'yolov8/yolov8_x_syncbn_fast_8xb16-500e_coco.py': {
        'neck.in_channels': [153, 307, 614], 'neck.out_channels': [153, 307, 614],
        'bbox_head.head_module.in_channels': [153, 307, 614]},
    'rtmdet/rtmdet_tiny_syncbn_fast_8xb32-300e_coco.py': {'neck.in_channels': [512, 1024, 2048]},
    'rtmdet/rtmdet_x_syncbn_fast_8xb32-300e_coco.py': {'neck.in_channels': [153.6, 307.2, 614.4]},
    'yolox/yolox_s_fast_8xb8-300e_coco.py': {'neck.in_channels': [384, 768, 1536]},
    'ppyoloe/ppyoloe_plus_s_fast_8xb8-80e_coco.py': {'neck.in_channels': [384, 768, 1536]},
    'yolov6/yolov6_s_syncbn_fast_8xb32-400e_coco.py': {'neck.in_channels': [384, 768, 1536]},
    'yolov7/yolov7_l_syncbn_fast_8x16b-300e_coco.py': {'neck.in_channels': [192, 384, 768]},
    'yolov5/yolov5_s-v61_syncbn_fast_8xb16-300e_coco.py': {
        'neck.in_channels': [384, 768, 1536], 'bbox_head.head_module.in_channels': [384, 768, 1536]},
    'yolov5/yolov5_s-p6-v62_syncbn_fast_8xb16-300e_coco.py': {
        'neck.0': YOLOV5_P6, 'neck.1.in_channels': [384, 768, 1536, 1536],
        'bbox_head.head_module.in_channels': [384, 768, 1536, 1536]},
}


def _get(part, key: str):
    for name in key.split('.'):
        part = part[int(name)] if isinstance(part, list) else part.get(name)
    return part


@pytest.mark.parametrize('name', CHANNELS)
def test_channels_that_are_set(name):
    cfg = get_config(f'mmyolo::{name}')
    model = swap_backbone(cfg, arch='tiny').model
    assert model.backbone == dict(type='dwnet.DWNet', arch='tiny', out_indices=(1, 2, 3))
    assert {key: _get(model, key) for key in CHANNELS[name]} == CHANNELS[name]
    head = 'bbox_head.head_module.in_channels'
    assert head in CHANNELS[name] or _get(model, head) == _get(cfg.model, head)


LATEST = ['yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py', 'rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py']
OTHERS = [name for name in CHANNELS if name not in LATEST and '_x_' not in name and '_tiny_' not in name]


@pytest.mark.parametrize('name', [*LATEST, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)])
def test_necks_and_heads_train_and_predict(name):
    train_and_predict(swap_backbone(get_config(f'mmyolo::{name}'), arch=SMALL))


# --- Data ----------------------------------------------------------------------------------------------


def dataset_of(root: Path, part: str = 'train', pipeline: list | None = None, **changes):
    cfg = copy.deepcopy(read(NANO)[f'{part}_dataloader'].dataset)
    cfg.update(data_root=str(root), **changes)
    if pipeline is not None:
        cfg.pipeline = pipeline
    with DefaultScope.overwrite_default_scope('mmyolo'):
        return DATASETS.build(with_checks(cfg))


def test_broken_annotations_are_left_out(small_digits, tmp_path):
    content = json.loads((small_digits / 'annotations/train.json').read_text())
    content['annotations'][0]['bbox'] = [5, 5, -3, 4]
    (tmp_path / 'broken.json').write_text(json.dumps(content))
    whole, mended = (dataset_of(small_digits, ann_file=str(file)) for file in (
        'annotations/train.json', tmp_path / 'broken.json'))
    assert type(whole).__name__ == 'CheckedYOLOv5CocoDataset'
    first = content['annotations'][0]['image_id']
    numbers = [[len(data.get_data_info(i)['instances']) for i in range(len(data))] for data in (whole, mended)]
    assert [a - b for a, b in zip(*numbers)] == [int(i == first) for i in range(len(whole))]


def test_a_mosaic_of_photographs_that_exif_turns(tmp_path):
    """The annotation is of the file's pixels; in a mosaic, too, each box lies on the white half of its image."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40] = 255
    exif = Image.Exif()
    exif[0x112] = 6
    (tmp_path / 'images').mkdir()
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f'images/{i}.png', exif=exif)
    (tmp_path / 'all.json').write_text(json.dumps(dict(
        images=[dict(id=i, file_name=f'{i}.png', width=80, height=40) for i in range(2)],
        categories=[dict(id=1, name='white')],
        annotations=[dict(id=i + 1, image_id=i, category_id=1, bbox=[0, 0, 40, 40], area=1600, iscrowd=0)
                     for i in range(2)])))
    reading = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    dataset = dataset_of(tmp_path, ann_file='all.json', data_prefix=dict(img='images'),
                         metainfo=dict(classes=['white']), pipeline=[
                             *reading, dict(type='Mosaic', img_scale=(80, 80), pre_transform=reading)])
    for _ in range(5):
        mosaic = dataset.prepare_data(0)
        assert len(mosaic['gt_bboxes']) == 4
        for left, top, right, bottom in mosaic['gt_bboxes'].tensor.round().int().clamp(min=0).tolist():
            assert (mosaic['img'][top:bottom, left:right] == 255).mean() > .95


def test_truth_of_a_validation_in_a_letter_box(small_digits):
    """As if the annotations had been loaded before the resizing."""
    cfg = read(NANO)
    load, *_ = steps = copy.deepcopy(cfg.val_dataloader.dataset.pipeline)
    for step in steps[1:3]:
        step.scale = (90, 160)
    early = [load, steps[3], *steps[1:3], steps[4]]
    behind, before = (dataset_of(small_digits, 'val', pipeline) for pipeline in (steps, early))
    toolbox = toolbox_of(cfg)
    model = MODELS.build(cfg.model)
    for i in range(3):
        sample, expected = behind[i]['data_samples'], before[i]['data_samples']
        assert tuple(sample.pad_param) == (35, 35, 0, 0)
        batch = model.data_preprocessor(dict(inputs=[behind[i]['inputs']], data_samples=[sample]), False)
        toolbox.fit_truth_to_input(batch, model, behind)
        torch.testing.assert_close(batch['data_samples'][0].gt_instances.bboxes, expected.gt_instances.bboxes.tensor)


# --- Training and prediction ---------------------------------------------------------------------------


def options(data: Path, **more) -> list[str]:
    settings = {f'{part}_dataloader.dataset.data_root': data for part in ('train', 'val', 'test')}
    settings |= {f'{part}_evaluator.ann_file': data / 'annotations/test.json' for part in ('val', 'test')}
    settings |= {f'{part}_dataloader.{key}': value for part in ('train', 'val', 'test')
                 for key, value in dict(num_workers=0, persistent_workers=False).items()}
    settings |= {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'default_hooks.logger.interval': 1,
                 'model.test_cfg.score_thr': 0, **more}
    return ['--cfg-options', *(f'{key}={value}' for key, value in settings.items())]


def test_a_short_training_is_scored_and_predicts(small_digits, tmp_path):
    own = options(small_digits)
    assert run_tool('tools/train.py', NANO, '--work-dir', tmp_path, *own).returncode == 0
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert all(np.isfinite(json.loads(line)['loss']) for line in scalars[:-1]) and len(scalars) == 4
    checkpoint = tmp_path / 'epoch_1.pth'
    assert run_tool('tools/test.py', NANO, checkpoint, '--work-dir', tmp_path / 'test', *own).returncode == 0
    scores = json.loads((tmp_path / 'test/scores.json').read_text())
    assert scores['coco/bbox_mAP'] == json.loads(scalars[-1])['coco/bbox_mAP']
    done = run_tool('tools/infer.py', small_digits / 'scenes/test/00000.jpg', '--config', NANO,
                    '--checkpoint', checkpoint, '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out').is_dir() and any((tmp_path / 'out').rglob('*'))
    done = run_tool('tools/test.py', NANO, checkpoint, '--tta', '--work-dir', tmp_path / 'tta', *own)
    assert done.returncode == 0 and json.loads((tmp_path / 'tta/scores.json').read_text())


def write_yolo(root: Path, scenes: list[Scene]) -> None:
    """The scenes as a YOLO folder."""
    for i, scene in enumerate(scenes):
        part = 'val' if i % 4 == 3 else 'train'
        write_picture(root / f'images/{part}/{scene.stem}', scene.size)
        lines = []
        for name, polygon in scene.objects:
            x, y, w, h = box_of(polygon)
            values = (x + w / 2) / scene.size[0], (y + h / 2) / scene.size[1], w / scene.size[0], h / scene.size[1]
            lines.append(' '.join(map(str, [NAMES.index(name), *values])))
        label = root / f'labels/{part}/{scene.stem}.txt'
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text('\n'.join(lines))
    (root / 'data.yaml').write_text('train: images/train\nval: images/val\nnames: [cat, dog, owl]\n')


@pytest.mark.long
@pytest.mark.parametrize('write', [write_yolo, table_of_coco], ids=['YOLO', 'COCO'])
def test_a_stock_yolov8_on_ones_own_data(write, tmp_path):
    """With mosaics, EMA and the hook's schedule; images of 128 pixels in the place of 640."""
    pytest.importorskip('albumentations', reason='a step of the stock pipeline')
    (tmp_path / 'data').mkdir()
    write(tmp_path / 'data', make_scenes(16))
    stock = swap_backbone(get_config('mmyolo::yolov8/yolov8_n_syncbn_fast_8xb16-500e_coco.py'), arch=SMALL)
    config = tmp_path / 'yolov8.py'
    config.write_text(stock.pretty_text.replace('640', '128').replace('-320', '-64'))
    loaders = [f'{part}_dataloader.{key}={value}' for part in ('train', 'val', 'test')
               for key, value in dict(num_workers=0, persistent_workers=False).items()]
    done = run_tool('tools/train.py', config, '--data-root', tmp_path / 'data', '--epochs', 2, '--work-dir',
                    tmp_path / 'work', '--cfg-options', 'model.test_cfg.score_thr=0', *loaders)
    assert done.returncode == 0, done.stderr
    assert '3 classes (cat, dog, owl)' in done.stdout
    log = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert all(np.isfinite(line['loss']) for line in lines if 'loss' in line)
    scores = lines[-1]
    assert 0 <= scores['coco/bbox_mAP'] <= 1 and np.isfinite(scores['val/loss'])


@pytest.mark.parametrize('name, length, warmup', [
    ('yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py', 'max_epochs', 'warmup_mim_iter'),
    ('ppyoloe/ppyoloe_plus_s_fast_8xb8-80e_coco.py', 'total_epochs', 'warmup_min_iter')])
def test_the_schedule_of_a_hook_is_stretched(name, length, warmup):
    cfg = get_config(f'mmyolo::{name}')
    whole = cfg.default_hooks.param_scheduler[length]
    set_epochs(cfg, cfg.train_cfg.max_epochs // 4, 8 * cfg.train_dataloader.batch_size)
    assert cfg.default_hooks.param_scheduler[length] == whole / 4
    assert cfg.default_hooks.param_scheduler[warmup] == cfg.train_cfg.max_epochs * 8 // 10


@pytest.mark.long
def test_the_embedded_config_learns(tmp_path):
    """The AP was 0.700 with the seed of the config."""
    done = run_tool('tools/train.py', NANO, '--work-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert scores[-1]['coco/bbox_mAP'] > .6


def test_an_export_is_refused(tmp_path):
    with pytest.raises(UserError, match='of mmyolo cannot be exported; its backbone alone can'):
        TOOLBOXES['mmyolo'].graph(MODELS.build(read(NANO).model))
