"""mmaction: TSN and TSM with DWNet, clips as data, what is refused; the nano config on moving digits."""
import json

import cv2
import numpy as np
import pytest
import torch
from conftest import read_config, run_python, run_tool
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from dwnet.apis import inferencer, swap_backbone
from dwnet.demo import digits
from dwnet.demo.digits_clips import DigitClips
from dwnet.deploy.inference import infer
from dwnet.engine import Runner
from dwnet.engine.preflight import preflight
from dwnet.errors import UserError
from dwnet.toolboxes import main_score, toolbox_of
from dwnet.toolboxes.checked import with_checks
from dwnet.toolboxes.own_data import use_own_data

pytest.importorskip('mmaction', reason="waits for pip install 'dwnet[action]' and mmaction2 --no-deps")
NANO = 'configs/video/tsn_dwnet-nano_digits.py'
SMALL = dict(embed_dims=16, depths=(1, 1, 1, 1))
TSN = 'mmaction::recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x8-100e_kinetics400-rgb.py'
TSM = 'mmaction::recognition/tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_sthv2-rgb.py'


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """A few clips of moving digits."""
    root = tmp_path_factory.mktemp('clips') / 'digits_clips'
    digits.prepare(root, DigitClips(train_clips=70, test_clips=12), show_progress=False)
    return root


@pytest.mark.long
def test_a_fresh_process_needs_no_import_of_dwnet_in_the_config():
    code = ("import dwnet, mmaction.models; from mmengine.registry import MODELS, init_default_scope\n"
            "from dwnet.errors import UserError; init_default_scope('mmaction')\n"
            "model = MODELS.build(dict(type='Recognizer2D', backbone=dict(type='dwnet.DWNet', out_indices=3), "
            "cls_head=dict(type='TSNHead', num_classes=3, in_channels=768)))\n"
            "import torch; print(tuple(model(torch.rand(2, 3, 3, 32, 32)).shape))\n"
            "try: MODELS.build(dict(type='DRN'))\n"
            "except UserError as error: print(error)")
    lines = run_python('-c', code).stdout.splitlines()
    assert lines[-2] == '(6, 768, 1, 1)' and lines[-1].startswith("mmaction2's wheel lacks the model DRN: install")


@pytest.mark.parametrize('name, frames', [(TSN, 5), (TSM, 8)])
def test_a_step_and_a_prediction(name, frames):
    """The prediction is the softmax of the mean over the frames, TSN's of the pooled maps, TSM's of the scores."""
    cfg = swap_backbone(get_config(name), arch=SMALL)
    assert cfg.model.backbone.out_indices == (3, ) and cfg.model.cls_head.in_channels == 128
    assert 'constructor' not in cfg.optim_wrapper and not cfg.optim_wrapper.get('paramwise_cfg')
    cfg.model.cls_head.dropout_ratio = 0.
    from mmaction.structures import ActionDataSample
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
        model.init_weights()
        samples = [ActionDataSample().set_gt_label(i) for i in range(2)]
        batch = dict(inputs=[torch.randint(0, 256, (frames, 3, 40, 56), dtype=torch.uint8) for _ in range(2)],
                     data_samples=samples)
        data = model.data_preprocessor(batch, training=True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
        gradient = model.backbone.patch_embed.proj.weight.grad
        assert loss.isfinite() and gradient.isfinite().all() and gradient.any()
        model.eval()
        with torch.no_grad():
            found = [sample.pred_score for sample in model.test_step(batch)]
            maps, = model.backbone(data['inputs'].flatten(0, 1))
            scores = model.cls_head.fc_cls(maps.mean((2, 3))).view(2, frames, -1).mean(1)
    torch.testing.assert_close(torch.stack(found), scores.softmax(1))


def test_two_maps_stay_a_tuple():
    read_config(NANO)  # enters the scope
    model = MODELS.build(dict(type='Recognizer2D', backbone=dict(type='dwnet.DWNet', arch=SMALL, out_indices=(2, 3))))
    maps, _ = model.extract_feat(torch.rand(1, 2, 3, 64, 64), stage='backbone')
    assert [tuple(x.shape) for x in maps] == [(2, 64, 4, 4), (2, 128, 2, 2)]


def test_the_nano_config_trains_scores_and_predicts(clips, tmp_path):
    cfg = _on(clips, tmp_path, arch=SMALL)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    assert main_score(cfg) == 'acc/top1'
    runner = Runner.from_cfg(cfg)
    preflight(runner)
    runner.train()
    assert runner.iter == 2
    scores = runner.test()
    assert 0 <= scores['acc/top1'] <= scores['acc/top5'] <= 1
    image = tmp_path / 'image.png'
    cv2.imwrite(str(image), np.zeros((9, 9, 3), np.uint8))
    files = [*sorted((clips / 'test').iterdir())[:2], image]
    predict = inferencer(cfg, tmp_path / 'work/epoch_1.pth')
    left_out = infer(predict, files, tmp_path / 'out')
    assert left_out == {str(image): 'it is no video, and this model predicts videos alone'}
    predictions = json.loads((tmp_path / 'out/predictions.json').read_text())['predictions']
    assert [entry['video'] for entry in predictions] == list(map(str, files[:2]))
    for i, entry in enumerate(predictions):
        with torch.no_grad():
            data = DATASETS.build({**cfg.test_dataloader.dataset, '_scope_': 'mmaction'})[i]
            expected = predict.model.test_step({key: [value] for key, value in data.items()})[0].pred_score
        best = entry['classes'][0]
        assert best['label'] == int(expected.argmax()) and best['class'] == str(best['label'])
        assert best['score'] == pytest.approx(float(expected.max()), abs=1e-5)


def _on(clips, work, **backbone) -> Config:
    cfg = read_config(NANO)
    cfg.work_dir = str(work / 'work')
    cfg.model.backbone.update(backbone)
    if backbone:
        cfg.model.cls_head.in_channels = 128
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].update(num_workers=0, persistent_workers=False)
        cfg[f'{part}_dataloader'].dataset.data_root = str(clips)
    return cfg


def test_a_missing_video_and_a_wrong_label_are_named(clips, tmp_path):
    cfg = _on(clips, tmp_path, arch=SMALL)
    listed = (clips / 'train.txt').read_text()
    wrong = tmp_path / 'train.txt'
    wrong.write_text(listed.replace('00001.avi', 'gone.avi').replace('\n', '\n00002.avi 11\n', 1))
    cfg.train_dataloader.dataset.ann_file = str(wrong)
    with pytest.raises(UserError) as error:
        preflight(Runner.from_cfg(cfg))
    assert 'gone.avi' in str(error.value) and 'are not in 0…9: 11 of' in str(error.value)


def test_missing_frames_are_named(tmp_path):
    for clip, frames in (('a', 3), ('b', 2)):
        (tmp_path / clip).mkdir()
        for i in range(frames):
            cv2.imwrite(str(tmp_path / clip / f'img_{i + 1:05d}.jpg'), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / 'good.txt').write_text('a 3 0\nb 2 1\n')
    (tmp_path / 'bad.txt').write_text('a 3 0\nb 3 1\nc 1 0\n')
    read_config(NANO)
    config = with_checks(dict(type='RawframeDataset', data_root=str(tmp_path), data_prefix=dict(img=''),
                              ann_file='good.txt', pipeline=[dict(type='RawFrameDecode')]))
    assert config['type'] == 'dwnet.CheckedRawframeDataset' and len(DATASETS.build(config)) == 2
    with pytest.raises(UserError, match=r'2 of 3 clips .* lack frames: .*b \(no img_00003.jpg\), .*c \(No such file'):
        DATASETS.build({**config, 'ann_file': 'bad.txt'})


def test_what_is_refused(tmp_path):
    cfg = read_config(NANO)
    toolbox = toolbox_of(cfg)
    with pytest.raises(UserError, match='--data-root has no form of data for mmaction'):
        use_own_data(cfg, str(tmp_path))
    with pytest.raises(UserError, match='--show-dir: mmaction draws the clips of 3D recognizers alone'):
        toolbox.save_pictures(cfg, 'pictures')
    with pytest.raises(UserError, match='--tta needs tta_model'):
        toolbox.add_mirrored_view(cfg)
    with pytest.raises(UserError, match='Recognizer2D cannot be exported'):
        toolbox.graph(MODELS.build(cfg.model))
    with pytest.raises(UserError, match='a classifier has one answer'):
        toolbox.slice_images(cfg, 640, .2)


@pytest.mark.long
def test_the_embedded_config_learns(tmp_path):
    """73.1 % were seen with the seed of the config, 69.1 % with seed 1; chance gives 10 %."""
    done = run_tool('tools/train.py', NANO, '--work-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert scores[-1]['acc/top1'] > .62


def test_the_model_that_the_wheel_lacks_says_so():
    from mmaction.models.localizers.drn.drn import DRN
    from mmaction.registry import MODELS
    with pytest.raises(UserError, match="mmaction2's wheel lacks the model DRN"):
        MODELS.build(dict(type='DRN'))
    assert DRN.__module__.startswith('mmaction.models.localizers.drn')
