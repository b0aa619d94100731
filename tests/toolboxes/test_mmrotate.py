"""mmrotate with DWNet: rotated boxes in stock configs, in the Runner, in pictures and in files."""
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_python, run_tool
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DATASETS, METRICS
from mmengine.structures import InstanceData
from PIL import Image
from stock_configs import SMALL, train_and_predict

from dwnet.apis import inferencer, init_model, swap_backbone
from dwnet.commands import doctor
from dwnet.demo import digits
from dwnet.demo.digits_rotated import RotatedDigits
from dwnet.deploy.inference import infer
from dwnet.engine.preflight import check_data
from dwnet.errors import UserError
from dwnet.inspect.analysis import analyze
from dwnet.inspect.samples import draw, make_visualizer
from dwnet.toolboxes import TOOLBOXES, enter_scope, main_score, toolbox_of
from dwnet.toolboxes.checked import with_checks
from dwnet.toolboxes.own_data import use_own_data

NANO = 'configs/rotated/rotated-rtmdet_dwnet-nano_digits.py'
STOCK = {
    'rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota': ((0, 1, 2, 3), [96, 192, 384, 768]),
    'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota': ((0, 1, 2, 3), [96, 192, 384, 768]),
    'rotated_rtmdet/rotated_rtmdet_tiny-3x-dota': ((1, 2, 3), [192, 384, 768]),
}


@pytest.fixture(scope='module')
def few_scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits_rotated'
    digits.prepare(root, RotatedDigits(train_scenes=12, test_scenes=5), show_progress=False)
    return root


@pytest.fixture
def nano(few_scenes, tmp_path) -> Config:
    """The config on the few scenes, with its work dir in a scratch folder."""
    cfg = Config.fromfile(NANO)
    enter_scope(cfg)
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].dataset.data_root = str(few_scenes)
    cfg.work_dir = str(tmp_path / 'work')
    return cfg


# --- Stock configs -------------------------------------------------------------------------------------


@pytest.mark.long
def test_starts_in_a_fresh_process():
    """Without a compiler, without custom_imports, and with the type's name alone."""
    done = run_python('-c', '''
import dwnet, mmrotate.models, mmrotate.apis
from mmengine.registry import MODELS, DefaultScope
DefaultScope.get_instance('here', scope_name='mmrotate')
print(type(MODELS.build(dict(type='dwnet.DWNet', arch=dict(embed_dims=32, depths=(1, 1, 1, 1))))).__name__)''')
    assert done.stdout.endswith('DWNet\n')


@pytest.mark.parametrize('name', STOCK)
def test_swap_by_one_line(name):
    cfg = swap_backbone(get_config(f'mmrotate::{name}.py'), arch='tiny')
    stages, channels = STOCK[name]
    assert cfg.model.backbone == dict(type='dwnet.DWNet', arch='tiny', out_indices=stages)
    assert list(cfg.model.neck.in_channels) == channels


@pytest.mark.parametrize('name', [
    name if 'rtmdet' in name else pytest.param(name, marks=pytest.mark.long) for name in STOCK])
def test_stock_configs_train_and_predict(name):
    train_and_predict(swap_backbone(get_config(f'mmrotate::{name}.py'), arch=SMALL))


# --- The data ------------------------------------------------------------------------------------------


def test_boxes_surround_the_digits(few_scenes, nano):
    """Each box, cut out and turned upright, holds bright ink; its pixels are those between its corners."""
    data = DATASETS.build(with_checks(nano.train_dataloader.dataset))
    assert len(data) == 12 and [data.get_data_info(i)['img_id'] for i in range(3)] == ['00000', '00001', '00002']
    for i in range(len(data)):
        sample = data[i]
        image = sample['inputs'].float().amax(0)
        truth = sample['data_samples'].gt_instances
        assert 1 <= len(truth) <= 5 and truth.bboxes.tensor.shape == (len(truth), 5)
        for x, y, width, height, angle in truth.bboxes.tensor.tolist():
            # mmrotate's angles are clockwise, in an image whose y points down
            along = torch.linspace(-.5, .5, 40)
            u, v = torch.meshgrid(along * width, along * height, indexing='ij')
            columns = x + u * math.cos(angle) - v * math.sin(angle)
            rows = y + u * math.sin(angle) + v * math.cos(angle)
            assert columns.min() > -1.5 and rows.min() > -1.5 and columns.max() < 129.5 and rows.max() < 129.5
            inside = image[rows.long().clamp(0, 127), columns.long().clamp(0, 127)] > 128  # the ground is darker
            assert inside.float().mean() > .1
            # ink reaches all four sides: the box is no larger than its digit
            for side in (inside[:4], inside[-4:], inside[:, :4], inside[:, -4:]):
                assert side.any()


def test_parts_share_no_digit_and_equal_settings_give_equal_files(few_scenes, tmp_path):
    assert digits.is_complete(few_scenes, RotatedDigits(train_scenes=12, test_scenes=5))
    assert not digits.is_complete(few_scenes, RotatedDigits(train_scenes=12, test_scenes=6))
    digits.prepare(tmp_path / 'again', RotatedDigits(train_scenes=12, test_scenes=5), show_progress=False)
    for file in few_scenes.rglob('*.*'):
        assert file.read_bytes() == (tmp_path / 'again' / file.relative_to(few_scenes)).read_bytes(), file
    artists = digits.artists(0)
    assert not {*artists['train'].indices.tolist()} & {*artists['test'].indices.tolist()}


def test_they_are_made_where_a_config_needs_them(tmp_path, monkeypatch):
    from dwnet.demo import embedded
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(digits, 'prepare', lambda root, *settings: made.append((str(root), *settings)))
    cfg = Config.fromfile(ROOT / NANO)
    with pytest.raises(UserError, match='remove data/digits_rotated, and it is made again'):
        check_data(cfg, 'train', prepare=embedded.prepare_if_missing)  # nothing is made by this stand-in
    assert {root for root, *_ in made} == {'data/digits_rotated'} and made[0][1] == RotatedDigits()
    made.clear()
    embedded.prepare_if_missing('data/digits/scenes/train')
    embedded.prepare_if_missing('data/digits_rotated/mine', 'data/other/train')
    assert made == [('data/digits', )]


@pytest.mark.parametrize('line, message', [
    ('1 2 3 4 5 6 7 8 3', r'00001\.txt:2 \(9 words, not 10\)'),
    ('1 2 3 4 5 six 7 8 3 0', 'could not convert string to float'),
    ('1 2 3 4 5 6 7 8 3 hard', 'invalid literal for int'),
    ('1 2 3 4 5 6 7 nan 3 0', 'corners that are not finite'),
    ('1 2 3 4 5 6 7 8 plane 0', "the class 'plane' is not in metainfo.classes"),
])
def test_broken_annotations_are_named(nano, tmp_path, line, message):
    folder = tmp_path / 'broken'
    folder.mkdir()
    good = '10 10 20 10 20 30 10 30 4 0\n'
    (folder / '00000.txt').write_text(good)
    (folder / '00001.txt').write_text(good + line + '\n')
    cfg = with_checks({**nano.train_dataloader.dataset, 'ann_file': str(folder)})
    with pytest.raises(UserError, match=f'1 lines of the annotations in .*{message}'):
        DATASETS.build(cfg)
    (folder / '00001.txt').write_text('')  # an image without objects
    assert len(DATASETS.build({**cfg, 'filter_cfg': None})) == 2
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(UserError, match='has no annotation files'):
        DATASETS.build(cfg)


# --- The score -----------------------------------------------------------------------------------------


def _metric(**settings):
    from mmrotate.evaluation import DOTAMetric  # noqa: F401  registers it
    cfg = Config(dict(default_scope='mmrotate', val_evaluator=dict(type='DOTAMetric', **settings)))
    enter_scope(cfg)
    metric = METRICS.build(toolbox_of(cfg).prepare_evaluator(cfg.val_evaluator, cfg))
    metric.dataset_meta = dict(classes=('0', '1', '2'))
    return metric


def _sample(number: int, truth: list[list[float]], labels: list[int], found: list[list[float]], scores: list[float],
            found_labels: list[int]) -> dict:
    boxes = torch.tensor(truth).reshape(-1, 5)
    return dict(
        img_id=str(number),
        gt_instances=dict(bboxes=boxes, labels=torch.tensor(labels, dtype=torch.long)),
        ignored_instances=dict(bboxes=boxes[:0], labels=torch.zeros(0).long()),
        pred_instances=dict(bboxes=torch.tensor(found).reshape(-1, 5), scores=torch.tensor(scores),
                            labels=torch.tensor(found_labels, dtype=torch.long)))


def test_the_score_is_computed_in_this_process():
    """Class 0: one of two found. Class 1: found after a false alarm. Class 2: not there."""
    a, b, c = [30., 30., 20., 10., .5], [70., 70., 20., 10., -.8], [50., 20., 30., 8., 1.2]
    turned = [*a[:4], a[4] + math.pi / 2]  # the same centre, across: IoU 1/3
    metric = _metric(eval_mode='area')
    assert type(metric).__name__ == 'InProcessDOTAMetric'
    metric.process({}, [_sample(0, [a, b], [0, 0], [a, turned], [.9, .8], [0, 0]),
                        _sample(1, [c], [1], [a, c], [.9, .6], [1, 1])])
    scores = metric.evaluate(2)
    assert scores['dota/mAP'] == pytest.approx((.5 + .5) / 2, abs=1e-6)
    assert scores['dota/AP50'] == .5
    table = metric.of_classes
    assert table['class'] == ['0', '1', '2'] and table['objects'] == [2, 1, 0]
    assert table['AP'][:2] == pytest.approx([.5, .5]) and math.isnan(table['AP'][2])
    assert TOOLBOXES['mmrotate'].class_scores(type('Evaluator', (), dict(metrics=[metric]))) == table


@pytest.mark.parametrize('metric, score', [
    (dict(type='DOTAMetric', metric='mAP'), 'dota/mAP'),
    ([dict(type='DOTAMetric', eval_mode='area', prefix='dota_ap12')], 'dota_ap12/mAP'),
    (dict(type='RotatedCocoMetric', metric='bbox'), 'r_coco/bbox_mAP'),
])
def test_the_score_that_chooses_the_best(metric, score):
    assert main_score(Config(dict(default_scope='mmrotate', val_evaluator=metric))) == score


# --- The embedded config -------------------------------------------------------------------------------


def test_two_iterations_a_score_and_pictures(nano, few_scenes, tmp_path):
    """The commands, as a user runs them: train, test, infer."""
    work, options = tmp_path / 'work', [
        f'{part}_dataloader.dataset.data_root={few_scenes}' for part in ('train', 'val', 'test')]
    options += [f'{part}_dataloader.num_workers=0' for part in ('train', 'val', 'test')]
    options += [f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val', 'test')]
    done = run_tool('tools/train.py', NANO, '--work-dir', work, '--cfg-options', *options,
                    'train_dataloader.batch_size=6', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
    assert done.returncode in (0, None), done.stderr[-2000:]
    checkpoint = (work / 'last_checkpoint').read_text()
    done = run_tool('tools/test.py', NANO, checkpoint, '--work-dir', work, '--show-dir', tmp_path / 'shown',
                    '--out', tmp_path / 'out.pkl', '--cfg-options', *options, 'model.test_cfg.score_thr=0.')
    assert done.returncode in (0, None), done.stderr[-2000:]
    scores = json.loads((work / 'scores.json').read_text())
    assert 0 <= scores['dota/mAP'] <= 1 and len(scores['classes']) == 10
    assert len([*(tmp_path / 'shown').rglob('*.png')]) == 5 and (tmp_path / 'out.pkl').stat().st_size > 1000
    done = run_tool('tools/infer.py', few_scenes / 'test/images/00000.png', '--config', NANO,
                    '--checkpoint', checkpoint, '--out', tmp_path / 'predicted', '--device', 'cpu',
                    '--cfg-options', 'model.test_cfg.score_thr=0.')
    assert done.returncode in (0, None), done.stderr[-2000:]
    entry, = json.loads((tmp_path / 'predicted/predictions.json').read_text())['predictions']
    assert 0 < len(entry['objects']) <= 30
    for found in entry['objects']:
        x, y, width, height, angle = found['rotated_box']
        assert 'box' not in found and width > 0 and height > 0 and -math.pi / 2 <= angle <= math.pi / 2


@pytest.mark.long
def test_a_stock_config_on_data_in_the_real_layout(few_scenes, tmp_path):
    """RetinaNet-O as mmrotate trains it on patches of DOTA, here on six small ones with DOTA's classes."""
    root = tmp_path / 'split_ss_dota'
    for folder in ('images', 'annfiles'):
        (root / 'trainval' / folder).mkdir(parents=True)
    for file in sorted((few_scenes / 'train/annfiles').iterdir())[:6]:
        lines = [line.split() for line in file.read_text().splitlines()]
        (root / 'trainval/annfiles' / file.name).write_text(
            '\n'.join(' '.join([*words[:8], ('plane', 'ship')[int(words[8]) % 2], '0']) for words in lines))
        image = (few_scenes / 'train/images' / file.name).with_suffix('.png')
        (root / 'trainval/images' / image.name).write_bytes(image.read_bytes())
    name = next(iter(STOCK))
    cfg = swap_backbone(get_config(f'mmrotate::{name}.py'), arch=SMALL)
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(root)
        for step in loader.dataset.pipeline:
            if step.type == 'mmdet.Resize':
                step.scale = (128, 128)
    cfg.dump(tmp_path / 'stock.py')
    work = tmp_path / 'work'
    done = run_tool('tools/train.py', tmp_path / 'stock.py', '--work-dir', work, '--cfg-options',
                    'train_cfg.max_epochs=1')
    assert done.returncode in (0, None), done.stderr[-2000:]
    done = run_tool('tools/test.py', tmp_path / 'stock.py', (work / 'last_checkpoint').read_text(), '--work-dir', work)
    assert done.returncode in (0, None), done.stderr[-2000:]
    scores = json.loads((work / 'scores.json').read_text())
    assert 0 <= scores['dota/mAP'] <= 1 and [found['class'] for found in scores['classes']][:2] == [
        'plane', 'baseball-diamond']


def test_what_is_broken_is_said_before_the_training(nano, few_scenes, tmp_path):
    options = [f'{part}_dataloader.dataset.data_root={tmp_path}' for part in ('train', 'val', 'test')]
    for part in ('train', 'test'):
        (tmp_path / part / 'images').mkdir(parents=True)
        (tmp_path / part / 'annfiles').mkdir()
        for file in sorted((few_scenes / part / 'annfiles').iterdir())[:4]:
            (tmp_path / part / 'annfiles' / file.name).write_bytes(file.read_bytes())
            image = Path('images', file.stem + '.png')
            (tmp_path / part / image).write_bytes((few_scenes / part / image).read_bytes())
    (tmp_path / 'train/images/00001.png').unlink()
    done = run_tool('tools/train.py', NANO, '--check', '--work-dir', tmp_path / 'work', '--cfg-options', *options)
    assert done.returncode == 2
    assert '1 of 4 files of the train data are missing' in done.stderr and '00001.png' in done.stderr


@pytest.mark.long
def test_the_embedded_config_learns(tmp_path):
    """750 steps, about 0.15 s of a core each."""
    done = run_tool('tools/train.py', NANO, '--work-dir', tmp_path)
    assert done.returncode in (0, None), done.stderr[-2000:]
    score = max(json.loads(line)['dota/mAP'] for file in tmp_path.rglob('scalars.json')
                for line in file.read_text().splitlines() if 'dota/mAP' in line)
    # .401 on an AMD CPU; .356, .252 and .299 with three seeds on a Xeon; about 0 before the training
    assert score > .15


# --- Pictures, and what is refused -----------------------------------------------------------------------


def test_pictures_keep_the_angle(nano):
    """A small image is drawn enlarged; the box's outline is where its enlarged corners are."""
    from mmdet.structures import DetDataSample
    visualizer = make_visualizer(nano, dict(classes=('0', ), palette=[(255, 0, 0)]), 'test')
    sample = DetDataSample(pred_instances=InstanceData(
        bboxes=torch.tensor([[32., 32., 40., 16., .6]]), labels=torch.tensor([0]), scores=torch.tensor([.9])))
    before = sample.pred_instances.bboxes.clone()
    picture = draw(visualizer, np.zeros((64, 64, 3), np.uint8), sample, truth=False)
    assert picture.shape == (256, 256, 3) and torch.equal(sample.pred_instances.bboxes, before)
    cos, sin = math.cos(.6), math.sin(.6)
    for u, v in ((-20, 0), (20, 0), (0, -8), (10, 8)):  # on the outline
        column, row = (round(4 * (32 + part)) for part in (u * cos - v * sin, u * sin + v * cos))
        assert picture[row - 4:row + 5, column - 4:column + 5, 0].max() > 100
    assert picture[128 + 4 * 20 - 6:128 + 4 * 20 + 6, 122:134].max() == 0  # a box across would be there


@pytest.mark.parametrize('boxes, entry', [
    (torch.tensor([[32., 32., 40., 16., .123456]]), dict(rotated_box=[32., 32., 40., 16., .1235])),
    (torch.tensor([[1., 2., 3., 4., 5., 6., 7., 8.]]), dict(corners=[1., 2., 3., 4., 5., 6., 7., 8.])),
])
def test_files_say_which_numbers_they_hold(nano, tmp_path, monkeypatch, boxes, entry):
    from mmdet.structures import DetDataSample
    predict = inferencer(nano)
    sample = DetDataSample(pred_instances=InstanceData(
        bboxes=boxes, labels=torch.tensor([3]), scores=torch.tensor([.5])))
    monkeypatch.setattr('dwnet.deploy.inference.predict', lambda inferencer, images: [sample] * len(images))
    Image.new('RGB', (64, 64)).save(tmp_path / 'a.png')
    assert not infer(predict, [tmp_path / 'a.png'], tmp_path / 'out', pictures=False)
    written, = json.loads((tmp_path / 'out/predictions.json').read_text())['predictions']
    assert written['objects'] == [{'class': '3', 'label': 3, 'score': .5, **entry}]


def test_what_is_refused(nano, tmp_path):
    toolbox = TOOLBOXES['mmrotate']
    model = init_model(nano)
    for call, message in (
            (lambda: toolbox.graph(model), 'RTMDet cannot be exported'),
            (lambda: toolbox.add_mirrored_view(nano), '--tta averages upright boxes'),
            (lambda: toolbox.slice_images(nano, 64, .2), '--slice joins upright boxes'),
            (lambda: use_own_data(nano, str(tmp_path)), '--data-root has no form of data for mmrotate'),
            (lambda: analyze(nano, tmp_path / 'out'), 'analyze has no pictures of the errors of mmrotate')):
        with pytest.raises(UserError, match=message):
            call()


def test_truth_in_the_pixels_of_the_input():
    """The truth of a validation is loaded behind the resizing, so losses need it resized."""
    from mmdet.structures import DetDataSample
    from mmrotate.structures.bbox import RotatedBoxes

    from dwnet.toolboxes.mmdet.resized_truth import _resize
    sample = DetDataSample(metainfo=dict(scale_factor=(2., 2.), img_shape=(128, 128), ori_shape=(64, 64)))
    given = RotatedBoxes(torch.tensor([[10., 12., 20., 8., .3]]))
    sample.gt_instances = InstanceData(bboxes=given, labels=torch.tensor([1]))
    _resize(sample)
    assert isinstance(sample.gt_instances.bboxes, RotatedBoxes)
    assert torch.allclose(sample.gt_instances.bboxes.tensor, torch.tensor([[20., 24., 40., 16., .3]]))
    assert given.tensor[0, 0] == 10


def test_the_doctor_knows_the_older_generation(monkeypatch):
    version = doctor._version
    findings = {finding.subject: finding for finding in doctor.examine()}
    assert findings['rotated'].state.startswith('ready (mmrotate 1.')
    monkeypatch.setattr(doctor, '_version', lambda name: '0.3.4' if name == 'mmrotate' else version(name))
    findings = {finding.subject: finding for finding in doctor.examine()}
    assert 'mmrotate 0.3.4 is an older generation of mmrotate-dev' in findings['rotated'].state
    assert findings['rotated'].remedy.startswith('pip uninstall mmrotate')
