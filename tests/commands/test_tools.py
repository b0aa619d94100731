"""The command lines as a user types them, in fresh processes, on data of a few dozen images."""
import functools
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_command, run_python, run_tool
from mmengine.config import Config
from mmengine.hooks import Hook

from dwnet.checkpoint import read_checkpoint

CLASSIFICATION = 'configs/classification/dwnet-nano_digits.py'
DETECTION = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'
SEGMENTATION = 'configs/segmentation/upernet_dwnet-nano_digits.py'
# two processes on a machine with one GPU run on its CPU
CPU = {} if torch.cuda.device_count() >= 2 else dict(CUDA_VISIBLE_DEVICES='')
METRICS = {
    CLASSIFICATION: ('accuracy/top1', 'accuracy/top5'),
    DETECTION: ('coco/bbox_mAP', 'coco/segm_mAP'),
    SEGMENTATION: ('mIoU', ),
}


def small(config: str, data: Path, **options) -> list[str]:
    """Options for the small data and a short training."""
    settings = {f'{part}_dataloader.dataset.data_root': data for part in ('train', 'val', 'test')}
    if config == DETECTION:
        settings |= {f'{part}_evaluator.ann_file': data / 'annotations/test.json' for part in ('val', 'test')}
    settings |= {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'default_hooks.logger.interval': 1}
    settings |= {key.replace('__', '.'): value for key, value in options.items()}
    return ['--cfg-options', *(f'{key}={value}' for key, value in settings.items())]


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / 'scores.json').read_text())


@pytest.fixture(scope='module')
def train_once(small_digits, tmp_path_factory):
    """Config → its options and the work dir of a training of one epoch, done when first asked for."""

    @functools.cache
    def train(config: str) -> tuple[list[str], Path]:
        work_dir, options = tmp_path_factory.mktemp('work'), small(config, small_digits)
        run_python('tools/train.py', config, '--work-dir', work_dir, *options)
        return options, work_dir

    return train


ALL_TASKS = pytest.mark.parametrize('config', METRICS, ids=['classification', 'detection', 'segmentation'])
# the same code for all tasks, so the everyday suite takes one
ONE_TASK = pytest.mark.parametrize('config', [
    CLASSIFICATION, *(pytest.param(c, marks=pytest.mark.long) for c in (DETECTION, SEGMENTATION))],
    ids=['classification', 'detection', 'segmentation'])


@ONE_TASK
def test_test_gives_the_scores_of_the_last_validation(config, train_once, tmp_path):
    options, work_dir = train_once(config)
    checkpoint, out = work_dir / 'epoch_1.pth', tmp_path
    assert not list(work_dir.glob('.*unfinished'))
    predictions = out / ('labels' if config == SEGMENTATION else 'predictions.pkl')
    done = run_python('tools/test.py', config, checkpoint, '--work-dir', out, '--show-dir', out / 'pictures',
                      '--out', predictions, *options)
    scalars = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    validation = json.loads(scalars[-1])
    scores = metrics_of(out)
    for key in METRICS[config]:
        assert scores[key] == validation[key], key
        assert f'{scores[key]:g}' in done.stdout
    pictures = [p for p in (out / 'pictures').rglob('*') if p.suffix in ('.png', '.jpg')]
    assert len(pictures) >= (450 if config == CLASSIFICATION else 9)
    assert predictions.is_file() or len(list(predictions.iterdir())) == 9


@pytest.mark.parametrize('config', [
    CLASSIFICATION, SEGMENTATION, pytest.param(DETECTION, marks=pytest.mark.long)], ids=[
    'classification', 'segmentation', 'detection'])
def test_deployed_scores_are_the_same(config, train_once, tmp_path):
    options, work_dir = train_once(config)
    scores = []
    for name, extra in (('plain', []), ('deployed', ['--deploy'])):
        own = [*options, 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
               f'experiment_name={name}_{Path(config).stem}']
        done = run_tool('tools/test.py', config, work_dir / 'epoch_1.pth', '--work-dir', tmp_path / name, *extra, *own)
        assert done.returncode == 0
        scores.append(metrics_of(tmp_path / name))
    assert all(scores[0][key] == scores[1][key] for key in METRICS[config])
    log = next((tmp_path / 'deployed').glob('*/*.log')).read_text()
    assert 'the BatchNorms of the backbone are folded' in log


@pytest.mark.long
@ALL_TASKS
def test_distributed_test_gives_exactly_the_same(config, train_once, tmp_path):
    options, work_dir = train_once(config)
    checkpoint = work_dir / 'epoch_1.pth'
    run_python('tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'one', *options, **CPU)
    run_command('bash', 'tools/dist_test.sh', config, checkpoint, '2', '--work-dir', tmp_path / 'two', *options, **CPU)
    one, two = metrics_of(tmp_path / 'one'), metrics_of(tmp_path / 'two')
    keys = set(one) - {'time', 'data_time'}
    assert keys and {k: one[k] for k in keys} == {k: two[k] for k in keys}


@ONE_TASK
def test_distributed_training(config, small_digits, tmp_path):
    options = small(config, small_digits, train_dataloader__batch_size=64 if config == CLASSIFICATION else 4)
    done = run_command('bash', 'tools/dist_train.sh', config, '2', '--work-dir', tmp_path, *options, **CPU)
    state = read_checkpoint(tmp_path / 'epoch_1.pth')
    per_process = 1347 // 64 // 2 if config == CLASSIFICATION else 24 // 4 // 2
    assert state['meta']['iter'] == per_process
    assert all(v.isfinite().all() for v in state['state_dict'].values())
    if config == SEGMENTATION:
        assert 'SyncBN needs a GPU' in done.stdout + done.stderr or not CPU and torch.cuda.is_available()


@pytest.mark.long
def test_resume_continues_where_the_training_was(train_once, tmp_path):
    """Epoch, optimiser and schedule after --resume are those of the checkpoint, and the training ends as planned."""
    config = CLASSIFICATION
    options, work_dir = train_once(config)
    from dwnet.commands.options.weights import enable_resume
    from dwnet.engine import Runner

    class Look(Hook):
        def before_train(self, runner):
            self.epoch, self.iter = runner.epoch, runner.iter
            self.optimizer = runner.optim_wrapper.state_dict()
            self.schedulers = [s.state_dict() for s in runner.param_schedulers]
            raise StopIteration

    shutil.copytree(work_dir, tmp_path / 'w')
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({o.partition('=')[0]: o.partition('=')[2] for o in options[1:] if 'data_root' in o})
    cfg.merge_from_dict({'work_dir': str(tmp_path / 'w'), 'train_cfg.max_epochs': 2})
    (tmp_path / 'w' / 'last_checkpoint').write_text(str(tmp_path / 'w' / 'epoch_1.pth'))
    enable_resume(cfg, 'auto')
    runner = Runner.from_cfg(cfg)
    look = Look()
    runner.register_hook(look)
    with pytest.raises(StopIteration):
        runner.train()
    saved = read_checkpoint(tmp_path / 'w' / 'epoch_1.pth')
    assert (look.epoch, look.iter) == (1, 21) == (saved['meta']['epoch'], saved['meta']['iter'])
    for a, b in zip(look.optimizer['state'].values(), saved['optimizer']['state'].values()):
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in ('step', 'exp_avg', 'exp_avg_sq'))
    assert look.optimizer['param_groups'][0]['lr'] == saved['optimizer']['param_groups'][0]['lr']
    for a, b in zip(look.schedulers, saved['param_schedulers']):
        assert a == b and a['last_step'] >= 20, (a, b)
    assert look.optimizer['state'], 'an optimiser without state proves nothing'

    longer = [o.replace('max_epochs=1', 'max_epochs=2') for o in options]
    run_python('tools/train.py', config, '--work-dir', tmp_path / 'w', '--resume', *longer)
    assert read_checkpoint(tmp_path / 'w' / 'epoch_2.pth')['meta']['iter'] == 42


@ONE_TASK
def test_a_resumed_training_is_the_uninterrupted_one(config, small_digits, tmp_path):
    """From a checkpoint in the middle of the epoch to the same bits: weights, moments, schedules."""
    options = [*small(config, small_digits), 'default_hooks.checkpoint.by_epoch=False', 'train_cfg.val_interval=9',
               'default_hooks.checkpoint.interval=5', 'default_hooks.checkpoint.max_keep_ckpts=-1']
    run_python('tools/train.py', config, '--work-dir', tmp_path / 'whole', *options)
    (tmp_path / 'cut').mkdir()
    shutil.copy(tmp_path / 'whole/iter_5.pth', tmp_path / 'cut')
    run_python('tools/train.py', config, '--work-dir', tmp_path / 'cut', '--resume', *options)
    last = (tmp_path / 'whole/last_checkpoint').read_text().rpartition('/')[2]
    whole, cut = (read_checkpoint(tmp_path / name / last) for name in ('whole', 'cut'))
    assert whole['meta']['iter'] == cut['meta']['iter'] > 5
    assert all(torch.equal(value, cut['state_dict'][name]) for name, value in whole['state_dict'].items())
    for a, b in zip(whole['optimizer']['state'].values(), cut['optimizer']['state'].values(), strict=True):
        assert a and all(torch.equal(a[key], b[key]) for key in a)
    assert whole['param_schedulers'] == cut['param_schedulers']


def test_test_time_augmentation_averages_over_the_views(train_once, tmp_path):
    config = SEGMENTATION
    options, work_dir = train_once(config)
    (tmp_path / 'tta.py').write_text(f"""
_base_ = {str(ROOT / config)!r}
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale_factor=f, keep_ratio=True) for f in (1., 1.5)],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
""")
    common = [tmp_path / 'tta.py', work_dir / 'epoch_1.pth', '--work-dir']
    for name, tta in (('plain', ()), ('tta', ('--tta', ))):
        done = run_tool('tools/test.py', *common, tmp_path / name, *tta, *options)
        assert not done.returncode, done.stderr[-3000:]
    assert metrics_of(tmp_path / 'plain')['aAcc'] != metrics_of(tmp_path / 'tta')['aAcc'] > 0


def last_line(done) -> str:
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize('arguments, message', [
    (['nothing.py'], 'nothing.py is missing; those of this project have names such as dwnet::'),
    (['https://example.org/x.py'], 'https://example.org/x.py is an address, and none is fetched: a config is Python'),
    (['s3://bucket/x.py'], 's3://bucket/x.py is an address, and none is fetched: a config is Python'),
    (['README.md'], 'README.md cannot be read'),
    ([CLASSIFICATION, '--cfg-options', 'train_dataloder.batch_size=2'], "did you mean 'train_dataloader'?"),
    ([CLASSIFICATION, '--btach', '3'], 'unrecognized arguments: --btach 3'),
    ([CLASSIFICATION, '--cfg-options', 'train_dataloader.dataset.data_root=/nowhere/digits'],
     '/nowhere/digits is missing (train data); put the data there, or say where it is'),
    (['configs/classification/dwnet-tiny_in1k.py'], 'data/imagenet is missing (train and val data); put the data '
     'there, or say where it is: --cfg-options train_dataloader.dataset.data_root=… val_dataloader.dataset.data_root='),
    (['configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py'], 'data/coco is missing (train and val data); put'
     ' the data there, or say where it is: --cfg-options data_root=…'),
    (['configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py'], 'data/ade/ADEChallengeData2016 is missing'),
    ([CLASSIFICATION, '--resume', 'nothing.pth', 'DATA'], 'checkpoint nothing.pth is missing'),
    pytest.param([CLASSIFICATION, '--amp', 'DATA'], '--amp needs a GPU',
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason='waits for a machine without a GPU')),
])
def test_mistakes_in_training_end_in_one_line(arguments, message, small_digits, tmp_path):
    if 'DATA' in arguments:
        arguments = [*arguments[:-1], *small(CLASSIFICATION, small_digits)]
    done = run_tool('tools/train.py', *arguments, '--work-dir', tmp_path / 'w')
    assert done.returncode == 2 and message in last_line(done), done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('name', ['https://example.org/x.py', 's3://bucket/x.py', 'http://example.org/x.json'])
@pytest.mark.parametrize('kind', ['py', 'json'])
def test_a_base_is_not_fetched_either(name, kind, tmp_path, monkeypatch):
    def connect(*_):
        raise AssertionError('something is fetched')

    monkeypatch.setattr('socket.socket.connect', connect)
    config = tmp_path / f'x.{kind}'
    config.write_text(json.dumps(dict(_base_=name)) if kind == 'json' else f'_base_ = [{name!r}]')
    for tool in ('tools/train.py', 'tools/get_flops.py'):
        done = run_tool(tool, config)
        assert done.returncode == 2 and f'a _base_ of {config} is an address, and none is fetched' in last_line(done)


@pytest.mark.parametrize('harm', ['missing', 'other model', 'truncated', 'hostile', 'bad out'])
def test_mistakes_in_testing_end_in_one_line(train_once, harm, tmp_path):
    config = CLASSIFICATION
    options, work_dir = train_once(config)
    checkpoint, mark, extra = work_dir / 'epoch_1.pth', tmp_path / 'mark', []
    if harm == 'missing':
        checkpoint, message = tmp_path / 'x.pth', 'x.pth is missing'
    elif harm == 'other model':
        options, message = [*options, 'model.backbone.token_mixer=dynamic'], 'does not fit the model'
    elif harm == 'truncated':
        (tmp_path / 'x.pth').write_bytes(checkpoint.read_bytes()[:5000])
        checkpoint, message = tmp_path / 'x.pth', 'damaged'
    elif harm == 'hostile':
        from test_compat import Hostile
        torch.save(dict(state_dict=Hostile(__import__('os').system, (f'touch {mark}', ))), tmp_path / 'x.pth')
        checkpoint, message = tmp_path / 'x.pth', 'holds more than weights'
    else:
        extra, message = ['--out', 'x.txt'], '--out x.txt: the predictions are written as .pkl'
    options = [*options, f'experiment_name={harm.replace(" ", "_")}']  # mmengine knows Runners by it
    done = run_tool('tools/test.py', config, checkpoint, '--work-dir', tmp_path, *extra, *options)
    assert done.returncode == 2 and message in last_line(done), done.stderr[-2000:]
    assert 'Traceback' not in done.stderr and not mark.exists()


@pytest.mark.parametrize('script, arguments', [
    ('dist_train.sh', []), ('dist_train.sh', [CLASSIFICATION, 'two']), ('dist_test.sh', [CLASSIFICATION, '2'])])
def test_launchers_say_how_they_are_called(script, arguments):
    done = run_command('bash', f'tools/{script}', *arguments, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f'usage: tools/{script} CONFIG')


@pytest.mark.parametrize(
    'tool', ['tools/train.py', 'tools/test.py', 'tools/demo.py', '-mdwnet', '-mdwnet.demo.digits'])
def test_help_has_an_example(tool):
    assert 'example: ' in run_python(tool, '--help').stdout


@pytest.mark.long
def test_broken_training_shows_in_the_score(small_digits, tmp_path):
    """The same short training learns from right labels and not from shuffled ones."""
    broken = tmp_path / 'digits'
    shutil.copytree(small_digits, broken)
    files = sorted((broken / 'classification/train').glob('*/*.jpg'))
    labels = [f.parent for f in files]
    random.Random(0).shuffle(labels)
    for file, label in zip(files, labels):
        file.rename(label / f'{file.parent.name}_{file.name}')
    scores = []
    for data in (small_digits, broken):
        work_dir = tmp_path / f'work{len(scores)}'
        run_python('tools/train.py', CLASSIFICATION, '--work-dir', work_dir, *small(
            CLASSIFICATION, data, train_cfg__max_epochs=4, train_cfg__val_interval=4, train_dataloader__batch_size=16))
        record = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()[-1]
        scores.append(json.loads(record)['accuracy/top1'])
    assert scores[0] >= 60 and scores[1] <= 20, scores


def test_makefile_keeps_to_its_venv(tmp_path):
    """`make setup` installs by .venv's own Python, and `make audit` by that of its own, with every way out closed."""
    text = (ROOT / 'Makefile').read_text()
    installs = [line for line in text.splitlines() if 'pip install' in line]
    own = ('$(ISOLATED) $(RUN) -m pip install', '$(ISOLATED) "$$folder/bin/python" -m pip install')
    assert len(installs) == 6 and all(any(way in line for way in own) for line in installs)
    for variable in ('PIP_TARGET', 'PIP_PREFIX', 'PIP_USER', 'PYTHONPATH', 'PYTHONHOME'):
        assert f'-u {variable}' in text
