"""Configs fitted to images of other channels and bits: their pipelines, models, pictures and errors."""
import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_config
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image

from dwnet.data.pixels import Pixels
from dwnet.engine import Runner
from dwnet.errors import UserError
from dwnet.inspect.batch import browse
from dwnet.inspect.samples import as_picture, to_picture
from dwnet.toolboxes.base import innermost
from dwnet.toolboxes.checked import with_checks
from dwnet.toolboxes.graphs import image_channels
from dwnet.toolboxes.pixels import has_own_range, reader_of, use_pixels

NANO = dict(classification='configs/classification/dwnet-nano_digits.py',
            detection='configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
            segmentation='configs/segmentation/upernet_dwnet-nano_digits.py')
TINY = dict(classification='configs/classification/dwnet-tiny_in1k.py',
            detection='configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py',
            segmentation='configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py')
# the mean of each kind is about that of the images that are written
KINDS = {'grey': Pixels(1, 'uint8', [120.], [70.]), 'twelve bits': Pixels(1, 'uint16', [2000.], [1200.]),
         'colours of 16 bits': Pixels(3, 'uint16', [1000., 2000., 3000.], [600., 1200., 1800.]),
         'four': Pixels(4, 'uint8', [120.] * 4, [70.] * 4),
         'bands': Pixels(5, 'uint16', [1000., 2000., 3000., 4000., 5000.], [600., 1200., 1800., 2400., 3000.]),
         'reals': Pixels(2, 'float32', [.5, .1], [.3, .06])}


def write_data(root: Path, pixels: Pixels) -> None:
    """Three .npy images of 64×80, with labels, boxes and label images."""
    random = np.random.default_rng(0)
    lines, images, objects = [], [], []
    for i in range(3):
        values = random.uniform(0, 2, (64, 80, pixels.channels)) * pixels.mean
        (root / 'images').mkdir(parents=True, exist_ok=True)
        np.save(root / f'images/{i}.npy', values.astype(pixels.dtype))
        (root / 'masks').mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 2, (64, 80), np.uint8)).save(root / f'masks/{i}.png')
        lines.append(f'images/{i}.npy {i % 2}\n')
        images.append(dict(id=i, file_name=f'{i}.npy', width=80, height=64))
        objects.append(dict(id=i + 1, image_id=i, category_id=1, bbox=[8, 8, 40, 40], area=1600, iscrowd=0,
                            segmentation=[[8, 8, 48, 8, 48, 48, 8, 48]]))
    (root / 'list.txt').write_text(''.join(lines))
    categories = [dict(id=1, name='a'), dict(id=2, name='b')]
    (root / 'coco.json').write_text(json.dumps(dict(images=images, annotations=objects, categories=categories)))


def own(task: str, root: Path, pixels: Pixels, configs: dict = NANO) -> Config:
    """A config that reads such data, fitted to their pixels."""
    write_data(root, pixels)
    cfg = copy.deepcopy(read_config(configs[task]))
    sets = dict(classification=dict(type='CustomDataset', ann_file=str(root / 'list.txt'), data_prefix=str(root)),
                detection=dict(type='CocoDataset', ann_file=str(root / 'coco.json'),
                               data_prefix=dict(img=f'{root}/images/')),
                segmentation=dict(type='BaseSegDataset', reduce_zero_label=configs is TINY, img_suffix='.npy',
                                  seg_map_suffix='.png', data_prefix=dict(img_path=f'{root}/images',
                                                                          seg_map_path=f'{root}/masks')))
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        pipeline = innermost(loader.dataset).pipeline
        loader.dataset = dict(sets[task], metainfo=dict(classes=('a', 'b')), pipeline=pipeline)
    for head in ('decode_head', 'auxiliary_head') if task == 'segmentation' else ():
        cfg.model[head].loss_decode.class_weight = None
    use_pixels(cfg, pixels)
    return cfg


@pytest.mark.parametrize('task, kind', [
    ('classification', 'grey'), ('classification', 'colours of 16 bits'), ('classification', 'reals'),
    ('detection', 'twelve bits'), ('detection', 'bands'), ('segmentation', 'four'), ('segmentation', 'bands')])
def test_models_train_and_predict(task, kind, tmp_path):
    """The written config suffices; the input has a mean near 0, and the gradient reaches the first layer."""
    pixels = KINDS[kind]
    own(task, tmp_path, pixels).dump(tmp_path / 'config.py')
    cfg = read_config(str(tmp_path / 'config.py'))
    model = MODELS.build(cfg.model)
    assert image_channels(model) == pixels.channels
    train, test = (Runner.build_dataloader(cfg[f'{part}_dataloader'], seed=0) for part in ('train', 'test'))
    batch = model.data_preprocessor(next(iter(train)), True)
    image = batch['inputs'][0]
    image = image[:, image.abs().sum(0) > 0]  # without padding
    assert image.shape[0] == pixels.channels
    assert (image.mean(1).abs() < .4).all() and (image.std(1) - 1).abs().max() < .4
    losses, _ = model.parse_losses(model(**batch, mode='loss'))
    losses.backward()
    assert model.backbone.patch_embed.proj.weight.grad.abs().sum() > 0
    sample = model.eval().test_step(next(iter(test)))[0]
    assert any(name.startswith('pred_') for name, _ in sample.items())


@pytest.mark.parametrize('task, kind', [
    ('classification', 'grey'), ('classification', 'bands'), ('detection', 'bands'), ('segmentation', 'twelve bits')])
def test_published_pipelines_keep_what_works(task, kind, tmp_path):
    left_out = dict(classification=['RandAugment, RandomErasing'], detection=[], segmentation=['PhotoMetricDistortion'])
    notes = use_pixels(copy.deepcopy(read_config(TINY[task])), KINDS[kind])
    assert notes[1:] == [f'steps for 8-bit colour are left out: {names}' for names in left_out[task]]
    cfg = own(task, tmp_path, KINDS[kind], TINY)
    for part in ('train', 'test'):
        dataset = DATASETS.build(with_checks(cfg[f'{part}_dataloader'].dataset))
        for i in range(4):
            torch.manual_seed(i)
            np.random.seed(i)
            assert dataset[i % 3]['inputs'].shape[0] == KINDS[kind].channels


def test_mixing_and_hooks_of_stock_configs():
    cfg = get_config('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
    init_default_scope('mmdet')
    cfg.model.backbone = dict(type='ResNet', depth=18, init_cfg=None)
    assert use_pixels(cfg, KINDS['bands']) == [
        'the images have 5 channels of uint16: mean and standard deviation are computed from them',
        'steps for 8-bit colour are left out: CachedMosaic, YOLOXHSVRandomAug, Pad, CachedMixUp']
    assert cfg.model.backbone.in_channels == 5
    switched = next(hook for hook in cfg.custom_hooks if 'switch_pipeline' in hook).switch_pipeline
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline, switched):
        assert pipeline[0].color_type == 'unchanged' and pipeline[0].to_float32
        assert not {'YOLOXHSVRandomAug', 'Pad', 'CachedMosaic'} & {step.type for step in pipeline}
    assert len(switched) == 6


def test_ways_to_choose_from_stay_as_many():
    cfg = Config(dict(default_scope='mmdet', model=dict(type='X', backbone=dict(type='ResNet', depth=18)),
                      train_dataloader=dict(dataset=dict(pipeline=[
                          dict(type='RandomChoice', prob=[.5, .5], transforms=[
                              dict(type='PhotoMetricDistortion'), [dict(type='Pad', pad_val=(1, 2, 3))]])]))))
    use_pixels(cfg, KINDS['twelve bits'])
    choice, = cfg.train_dataloader.dataset.pipeline
    assert choice.transforms == [[], [dict(type='Pad', pad_val=1)]]


def test_the_reader_of_a_config():
    cfg = read_config(NANO['segmentation'])
    assert reader_of(cfg).color_type == 'color' and not has_own_range(cfg)
    for kind, *expected in (('grey', 'grayscale', False), ('four', 'unchanged', False), ('bands', 'unchanged', True)):
        fitted = copy.deepcopy(cfg)
        use_pixels(fitted, KINDS[kind])
        reader = reader_of(fitted)
        assert [reader.color_type, reader.to_float32] == expected and has_own_range(fitted) == expected[1]


def test_colours_of_16_bits_are_normalised_in_the_models_order():
    cfg = read_config(NANO['classification'])
    use_pixels(cfg, KINDS['colours of 16 bits'])
    assert cfg.model.data_preprocessor.to_rgb and cfg.model.data_preprocessor.mean == [1000, 2000, 3000]
    cfg.model.data_preprocessor.to_rgb = False
    use_pixels(cfg, KINDS['colours of 16 bits'])
    assert cfg.model.data_preprocessor.mean == [3000, 2000, 1000] and 'in_channels' not in cfg.model.backbone


def test_what_cannot_have_other_channels_is_named():
    cfg = copy.deepcopy(read_config(NANO['detection']))
    cfg.model.backbone = dict(type='CSPDarknet')
    with pytest.raises(UserError, match='5 channels of uint16, and CSPDarknet has no argument in_channels'):
        use_pixels(cfg, KINDS['bands'])
    cfg = copy.deepcopy(read_config(NANO['detection']))
    cfg.model.data_preprocessor.type = 'TrackDataPreprocessor'
    with pytest.raises(UserError, match='5 channels, and TrackDataPreprocessor takes 1 or 3'):
        use_pixels(cfg, KINDS['bands'])


@pytest.mark.parametrize('channels, shown', [
    (1, [0, 0, 0]), (2, [0, 0, 0]), (3, [2, 1, 0]), (4, [0, 1, 2]), (5, [0, 1, 2])])
def test_pictures_of_any_channels(channels, shown):
    image = np.random.default_rng(0).integers(0, 256, (6, 8, channels), np.uint8)
    assert (as_picture(image) == image[..., shown]).all()
    stretched = as_picture(image.astype(np.float32) * 100 - 7000, stretch=True)
    assert stretched.shape == (6, 8, 3) and stretched.min() == 0 and stretched.max() == 255
    order = np.argsort(image[..., shown[0]], axis=None)
    assert (np.diff(stretched[..., 0].ravel()[order].astype(int)) >= 0).all()
    assert not as_picture(np.full((4, 4, channels), 9.), stretch=True).any()


def test_a_sheet_of_training_images(tmp_path):
    cfg = own('segmentation', tmp_path, KINDS['bands'])
    figure = browse(cfg, number=2)
    assert all(len(np.unique(axes.images[0].get_array())) > 100 for axes in figure.axes)


def test_the_networks_input_as_a_picture():
    cfg = read_config(NANO['segmentation'])
    use_pixels(cfg, KINDS['bands'])
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    image = np.random.default_rng(0).uniform(0, 6000, (8, 8, 5)).astype(np.float32)
    inputs = preprocessor(dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)]))['inputs'][0]
    difference = to_picture(inputs, preprocessor, True).astype(int) - as_picture(image, True)
    assert np.abs(difference).max() <= 1
