"""mmpose with DWNet: swapped into stock configs, trained, scored and asked for keypoints; what it refuses, in words."""
import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_python, run_tool
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DATASETS, MODELS
from mmengine.structures import InstanceData
from mmpose.structures import PoseDataSample
from PIL import Image

from dwnet.apis import inferencer, init_model, swap_backbone
from dwnet.commands.options.running import enable_slices, enable_tta
from dwnet.demo import digits
from dwnet.demo.digits_pose import KEYPOINTS, PoseDigits, describe, keypoints_of
from dwnet.deploy.inference import infer
from dwnet.engine import Runner
from dwnet.engine.preflight import preflight
from dwnet.errors import UserError
from dwnet.inspect.analysis import analyze
from dwnet.inspect.samples import draw, make_visualizer
from dwnet.toolboxes import enter_scope, main_score, toolbox_of
from dwnet.toolboxes.own_data import use_own_data

CONFIG = 'configs/pose/td-hm_dwnet-nano_digits.py'


@pytest.fixture(scope='module')
def scenes(tmp_path_factory) -> Path:
    """A dozen scenes of digits with keypoints."""
    root = tmp_path_factory.mktemp('data') / 'digits_pose'
    digits.prepare(root, PoseDigits(train_scenes=8, test_scenes=4), show_progress=False)
    return root


@pytest.fixture
def cfg(scenes, tmp_path) -> Config:
    """The nano config on these scenes, for two iterations in this process."""
    cfg = Config.fromfile(ROOT / CONFIG)
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=8)
        loader.dataset.data_root = str(scenes)
        if part != 'train':
            cfg[f'{part}_evaluator'][0].ann_file = str(scenes / 'annotations/test.json')
    cfg.update(work_dir=str(tmp_path / 'work'), log_level='ERROR')
    cfg.train_dataloader.dataset.indices = 16
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    enter_scope(cfg)
    toolbox_of(cfg).load()
    return cfg


# --- In a fresh process, without custom_imports ----------------------------------------------------------

STOCK = """
import dwnet
from mmengine.hub import get_config
import mmpose.models
from mmpose.registry import MODELS
from mmengine.registry import init_default_scope
cfg = get_config('mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py')
cfg.model.backbone = dict(type='dwnet.DWNet', arch='tiny', out_indices=(3, ))
cfg.model.head.in_channels = 768
init_default_scope('mmpose')
print(type(MODELS.build(cfg.model).backbone).__module__)
"""


def test_a_stock_config_in_a_fresh_process():
    assert run_python('-c', STOCK).stdout.split()[-1] == 'dwnet.models.dwnet'


# --- Swapping --------------------------------------------------------------------------------------------

COCO = 'mmpose::body_2d_keypoint/topdown_heatmap/coco'
SWAPS = {  # stock config → stages, and what the head says then
    f'{COCO}/td-hm_res50_8xb64-210e_coco-256x192.py': ((3, ), dict(in_channels=768)),
    f'{COCO}/td-hm_hrnet-w32_8xb64-210e_coco-256x192.py': ((3, ), dict(
        in_channels=768, deconv_out_channels=(256, ) * 3, deconv_kernel_sizes=(4, ) * 3)),
    f'{COCO}/td-hm_ViTPose-small_8xb64-210e_coco-256x192.py': ((3, ), dict(
        in_channels=768, deconv_out_channels=(256, ) * 3, deconv_kernel_sizes=(4, ) * 3)),
    'mmpose::body_2d_keypoint/rtmpose/coco/rtmpose-m_8xb256-420e_coco-256x192.py': ((3, ), dict(
        in_channels=768, in_featuremap_size=(6, 8))),
    'mmpose::body_2d_keypoint/dekr/coco/dekr_hrnet-w32_8xb10-140e_coco-512x512.py': ((0, 1, 2, 3), dict(
        in_channels=96 + 192 + 384 + 768)),
}


@pytest.mark.parametrize('name', SWAPS)
def test_swap(name):
    stages, head = SWAPS[name]
    stock = get_config(name)
    before = copy.deepcopy(stock)
    model = swap_backbone(stock, arch='tiny').model
    assert stock.to_dict() == before.to_dict()
    assert model.backbone.to_dict() == dict(type='dwnet.DWNet', arch='tiny', out_indices=stages)
    assert {key: model.head[key] for key in head} == head


def test_a_head_that_cannot_make_up_for_smaller_maps():
    stock = get_config('mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_hrnet-w32_8xb64-210e_coco-256x192.py')
    stock.model.head.type = 'RTMCCHead'
    with pytest.raises(UserError, match='8 times smaller than those of the old backbone, and a RTMCCHead has no'):
        swap_backbone(stock)


# --- The embedded data -----------------------------------------------------------------------------------


def test_keypoints_of_a_shape():
    """A cross of two strokes, 21 pixels high and 11 wide; the mean of all ink is where the lower stroke pulls it."""
    mask = np.zeros((40, 40), bool)
    mask[5:26, 20:23] = True  # upright
    mask[10:12, 15:26] = True  # lying
    ink = 21 * 3 + 11 * 2 - 3 * 2
    y = (3 * sum(range(5, 26)) + 8 * (10 + 11)) / ink
    x = (21 * 3 * 21 + 2 * sum(range(15, 26)) - 2 * 3 * 21) / ink
    expected = [(21, 6), (21, 24), (15.5, 10.5), (24.5, 10.5), (x, y)]
    # an end is a tenth of 20 or 10 pixels: the outermost three rows, or two columns
    assert keypoints_of(mask) == pytest.approx(np.array(expected))
    entry = describe(mask)
    assert (entry['bbox'], entry['area']) == ([15, 5, 11, 21], ink)
    assert entry['keypoints'][:3] == [21., 6., 2] and len(entry['keypoints']) == 3 * len(KEYPOINTS)


# --- Training, scores, predictions -----------------------------------------------------------------------


def test_losses_reach_the_first_layer(cfg):
    runner = Runner.from_cfg(cfg)
    batch = next(iter(runner.train_dataloader))
    model = runner.model
    model.train()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert set(losses) == {'loss_kpt', 'acc_pose'}
    losses['loss_kpt'].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())


def test_train_test_and_predict(cfg, scenes, tmp_path):
    del cfg.default_hooks.checkpoint['save_best']
    assert main_score(cfg) == 'coco/AP'
    runner = Runner.from_cfg(cfg)
    preflight(runner)
    runner.train()
    scores = runner.test()
    assert {'coco/AP', 'coco/AR', 'PCK'} <= set(scores) and all(0 <= scores[key] <= 1 for key in ('coco/AP', 'PCK'))

    predict = inferencer(cfg, tmp_path / 'work/epoch_1.pth')
    files = sorted((scenes / 'scenes/test').iterdir())[:3]
    assert infer(predict, files, tmp_path / 'out', batch_size=2) == {}
    found = json.loads((tmp_path / 'out/predictions.json').read_text())['predictions']
    assert [entry['image'] for entry in found] == [str(file) for file in files]
    for entry in found:
        pose, = entry['objects']  # of a top-down model: the whole image is the box
        assert list(pose['keypoints']) == list(KEYPOINTS) and pose['box'] == [0., 0., 128., 128.]
        assert all(len(values) == 3 for values in pose['keypoints'].values())
        with Image.open(tmp_path / 'out' / entry['picture']) as picture:
            assert picture.size == (256, 256)
    # the same as mmpose's own call, image by image
    own = [next(predict(str(file)))['predictions'][0] for file in files]
    for entry, (pose, ) in zip(found, own):
        assert [values[:2] for values in entry['objects'][0]['keypoints'].values()] == [
            pytest.approx(point, abs=.01) for point in pose['keypoints']]


def test_pictures_of_the_truth(cfg, scenes):
    """The keypoints of the first digit are drawn in their colours, enlarged with the picture."""
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': []})
    info = dataset.get_data_info(0)
    sample = PoseDataSample(gt_instances=InstanceData(
        keypoints=info['keypoints'], keypoints_visible=info['keypoints_visible'], bboxes=info['bbox']))
    image = np.zeros((128, 128, 3), np.uint8)
    picture = draw(make_visualizer(cfg, dataset.metainfo, 'test'), image, sample, truth=True)
    assert picture.shape == (256, 256, 3)
    for (x, y), colour in zip(info['keypoints'][0][:4] * 2, dataset.metainfo['keypoint_colors']):
        near = picture[round(y) - 2:round(y) + 3, round(x) - 2:round(x) + 3].reshape(-1, 3).astype(int)
        assert np.abs(near - colour).sum(-1).min() < 60


@pytest.mark.long
def test_the_embedded_config_learns(tmp_path):
    """The AP was 0.324 and the PCK 0.908 with the seed of the config."""
    options = ['--cfg-options', *(f'{part}_dataloader.{setting}' for part in ('train', 'val', 'test')
                                  for setting in ('num_workers=0', 'persistent_workers=False'))]
    done = run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path, *options)
    assert not done.returncode, done.stderr
    checkpoint = (tmp_path / 'last_checkpoint').read_text()
    assert not run_tool('tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'test', *options).returncode
    scores = json.loads((tmp_path / 'test/scores.json').read_text())
    assert scores['coco/AP'] > .29 and scores['PCK'] > .82


# --- What is refused -------------------------------------------------------------------------------------


def test_an_annotation_of_other_keypoints_is_named(cfg, scenes, tmp_path):
    content = json.loads((scenes / 'annotations/train.json').read_text())
    del content['annotations'][4]['keypoints'][-3:]
    (tmp_path / 'train.json').write_text(json.dumps(content))
    cfg.train_dataloader.dataset.update(ann_file=str(tmp_path / 'train.json'), indices=None)
    with pytest.raises(UserError, match=r'train.json: annotation 5 has 12 numbers in keypoints, and 5 keypoints .* 15'):
        preflight(Runner.from_cfg(cfg))


def test_a_damaged_image_is_named(cfg, scenes, tmp_path):
    """In the data of the validation; a training leaves a few damaged images out."""
    for file in (scenes / 'scenes/test').iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[:len(content) // 2] if file.name == '00000.jpg' else content)
    cfg.val_dataloader.dataset.data_prefix.img = str(tmp_path)
    with pytest.raises(UserError, match='00000.jpg .*its end is missing'):
        preflight(Runner.from_cfg(cfg))


def test_what_is_refused(cfg):
    with pytest.raises(UserError, match=r'--tta: .* model\.test_cfg\.flip_test=True'):
        enable_tta(cfg)
    with pytest.raises(UserError, match='--slice is for detectors and segmentors; a pose estimator'):
        enable_slices(cfg, 64, None)
    with pytest.raises(UserError, match='--data-root has no form of data for mmpose: set the dataloaders'):
        use_own_data(cfg, '.')
    with pytest.raises(UserError, match='analyze has no pictures of the errors of mmpose'):
        analyze(cfg, Path('nowhere'))


def test_export_is_refused(cfg):
    model = init_model(cfg)
    with pytest.raises(UserError, match='TopdownPoseEstimator cannot be exported: .*--backbone'):
        toolbox_of(cfg).graph(model)


def test_the_heads_output_fits_the_heatmaps(cfg):
    model = MODELS.build(cfg.model)
    assert model(torch.rand(1, 3, 64, 64), None).shape == (1, 5, 16, 16)
