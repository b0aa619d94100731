"""Tools on exported files: predictions and scores are those of the checkpoint."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import read_config, run_tool
from mmengine.config import Config
from mmengine.logging import MMLogger
from reference import fill

from dwnet.apis import inferencer, init_model
from dwnet.deploy import exported as exported_room
from dwnet.deploy.exported import with_exported
from dwnet.deploy.inference import infer as infer_files
from dwnet.deploy.inference import predict
from dwnet.deploy.record import Record
from dwnet.deploy.runtimes import Exported
from dwnet.errors import UserError
from dwnet.toolboxes import enter_scope, toolbox_of
from dwnet.toolboxes.graphs import image_channels

CONFIGS = {
    'classification': 'configs/classification/dwnet-nano_digits.py',
    'detection': 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
    'segmentation': 'configs/segmentation/upernet_dwnet-nano_digits.py',
}
# a file's own names of the classes
NAMES = {task: tuple(f'{task} {i}' for i in range(number))
         for task, number in (('classification', 10), ('detection', 10), ('segmentation', 11))}
QUICK = ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']


class InPyTorch(Exported):
    """What an exported file of a model would compute, without the minutes of an export."""

    def __init__(self, model: torch.nn.Module, path: Path, task: str = '', labels: tuple[str, ...] | None = None):
        toolbox = toolbox_of(model.cfg)
        self.graph = toolbox.graph(model)
        labels = NAMES[toolbox.task] if labels is None else labels
        self.path, self.record = path, Record(task or toolbox.task, labels, ((1, 2, 3), ) * len(labels))
        self.channels, self.outputs, self.shapes = image_channels(model), list(self.graph.axes), []

    @torch.no_grad()
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.shapes.append(images.shape)
        outputs = self.graph(torch.from_numpy(images))
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        return {name: output.numpy() for name, output in zip(self.outputs, outputs, strict=True)}


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory) -> Path:
    """Random weights of each task, with which a detector finds something."""
    folder = tmp_path_factory.mktemp('checkpoints')
    for task, config in CONFIGS.items():
        model = init_model(read_config(config))
        weights = fill({k: list(v.shape) for k, v in model.state_dict().items()}, seed=3)
        torch.save(dict(state_dict=weights), folder / f'{task}.pth')
    return folder


def config_of(task: str, **options) -> Config:
    cfg = read_config(CONFIGS[task])
    if task == 'detection':
        cfg.model.test_cfg.rcnn.score_thr = .01
    cfg.merge_from_dict(options)
    return cfg


@pytest.fixture
def exported(checkpoints, tmp_path, monkeypatch):
    """Returns a function that makes a file of a task, which is computed by PyTorch."""

    def make(task: str, /, cfg: Config | None = None, checkpoint: Path | None = None, **record) -> InPyTorch:
        model = init_model(cfg or config_of(task), checkpoint or checkpoints / f'{task}.pth')
        file = InPyTorch(model, tmp_path / f'{task}.onnx', **record)
        file.path.touch()
        monkeypatch.setattr(exported_room, 'open_exported', lambda path: {str(file.path): file}[str(path)])
        return file

    return make


@pytest.fixture(scope='module')
def scenes(small_digits) -> list[np.ndarray]:
    """Three scenes; the last is not square, and of another size."""
    files = sorted((small_digits / 'scenes/test').glob('*.jpg'))[:3]
    first, second, third = (cv2.imread(str(file)) for file in files)
    return [first, second, cv2.resize(third, (100, 80))]


def assert_same(ours, theirs, task: str, names: bool = False) -> None:
    if task == 'classification':
        assert (ours.pred_label == theirs.pred_label).all()
        assert torch.allclose(ours.pred_score, theirs.pred_score, atol=1e-6)
    elif task == 'segmentation':
        assert torch.equal(ours.pred_sem_seg.data, theirs.pred_sem_seg.data)
    else:
        ours, theirs = ours.pred_instances, theirs.pred_instances
        assert len(ours) == len(theirs) > 5 and torch.equal(ours.labels, theirs.labels)
        assert torch.allclose(ours.bboxes, theirs.bboxes, atol=1e-3)
        assert torch.allclose(ours.scores, theirs.scores, atol=1e-6)
        assert ours.masks.shape == theirs.masks.shape and (ours.masks != theirs.masks).float().mean() < 1e-5


@pytest.mark.parametrize('task', CONFIGS)
def test_predictions(task, exported, checkpoints, scenes):
    """In the pixels of the image, also where the pipeline resizes it; names and colours are the file's."""
    file, cfg = exported(task), config_of(task)
    before = cfg.pretty_text
    theirs, ours = inferencer(cfg, checkpoints / f'{task}.pth'), inferencer(with_exported(cfg, file.path))
    assert cfg.pretty_text == before
    assert ours.model.dataset_meta == dict(classes=NAMES[task], palette=[(1, 2, 3)] * len(NAMES[task]))
    for scene in scenes:
        assert_same(predict(ours, [scene])[0], predict(theirs, [scene])[0], task)
    file.shapes.clear()
    for sample, scene in zip(predict(ours, scenes[:2]), scenes):
        assert_same(sample, predict(theirs, [scene])[0], task)
    assert [shape[0] for shape in file.shapes] == ([1, 1] if task == 'detection' else [2])


def test_images_of_a_batch_are_not_padded(exported, scenes):
    file = exported('detection')
    ours = inferencer(with_exported(config_of('detection'), file.path))
    for sample, scene in zip(predict(ours, scenes), scenes):
        assert_same(sample, predict(ours, [scene])[0], 'detection')


@pytest.mark.parametrize('task, options', [
    ('classification', []),
    *(pytest.param(*each, marks=pytest.mark.long) for each in (
        ('classification', ['--tta']), ('segmentation', []), ('segmentation', ['--tta'])))])
def test_scores(task, options, exported, checkpoints, small_digits, tmp_path):
    if task == 'segmentation' and not options:
        options = ['--slice', '64']
    scores = []
    for file in (checkpoints / f'{task}.pth', exported(task).path):
        folder = tmp_path / file.suffix[1:]
        done = run_tool('tools/test.py', CONFIGS[task], file, '--work-dir', folder, *options, '--cfg-options', *QUICK,
                        f'test_dataloader.dataset.data_root={small_digits}')
        assert done.returncode == 0, done.stderr
        scores.append(json.loads((folder / 'scores.json').read_text()))
    MMLogger.get_instance('behind the tools')  # that of the Runner has closed its file
    assert scores[0] == scores[1]


@pytest.mark.parametrize('options', [[], ['--slice', '80', '--batch-size', '4']], ids=['plain', 'slice'])
def test_what_infer_writes(options, exported, checkpoints, small_digits, tmp_path):
    file, written = exported('detection'), []
    scene = sorted((small_digits / 'scenes/test').glob('*.jpg'))[0]
    for name, path in (('--checkpoint', checkpoints / 'detection.pth'), ('--model', file.path)):
        done = run_tool('tools/infer.py', scene, '--config', CONFIGS['detection'], name, path, '--out', tmp_path / name,
                        *options, '--cfg-options', 'model.test_cfg.rcnn.score_thr=.01')
        assert done.returncode == 0, done.stderr
        assert cv2.imread(str(tmp_path / name / 'pictures' / f'{scene.stem}.png')) is not None
        written.append(json.loads((tmp_path / name / 'predictions.json').read_text()))
    theirs, ours = written
    assert ours['classes'] == list(NAMES['detection']) and ours['left_out'] == {}
    (theirs, ), (ours, ) = theirs['predictions'], ours['predictions']
    assert len(ours['objects']) == len(theirs['objects']) > 5
    for one, other in zip(ours['objects'], theirs['objects']):
        assert one['label'] == other['label'] and one['score'] == pytest.approx(other['score'], abs=2e-6)
        assert one['box'] == pytest.approx(other['box'], abs=.011)
        assert one['mask']['size'] == other['mask']['size']


def test_several_labels(exported, checkpoints, scenes, tmp_path):
    cfg = config_of('classification')
    cfg.model.head = dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=cfg.model.head.in_channels,
                          thr=.4)
    weights = init_model(cfg).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'several.pth')
    file = exported('classification', cfg, tmp_path / 'several.pth')
    theirs, ours = inferencer(cfg, tmp_path / 'several.pth'), inferencer(with_exported(cfg, file.path))
    sample, = predict(ours, scenes[:1])
    assert_same(sample, predict(theirs, scenes[:1])[0], 'classification')
    assert sample.pred_score.sum() > 2  # sigmoids


def test_images_of_five_channels(exported, tmp_path):
    """They are not turned round."""
    cfg = config_of('classification', **{'model.backbone.in_channels': 5})
    cfg.model.data_preprocessor.update(mean=[1., 2., 3., 4., 5.], std=[2.] * 5, to_rgb=False)
    cfg.test_dataloader.dataset.pipeline[0].color_type = 'unchanged'
    torch.save(dict(state_dict=init_model(cfg).state_dict()), tmp_path / 'five.pth')
    file = exported('classification', cfg, tmp_path / 'five.pth')
    theirs, ours = init_model(cfg, tmp_path / 'five.pth'), init_model(with_exported(cfg, file.path))
    assert image_channels(ours) == 5
    batch = dict(inputs=torch.rand(2, 5, 64, 64) * 9)
    with torch.no_grad():
        for one, other in zip(ours.test_step(batch), theirs.test_step(batch)):
            assert_same(one, other, 'classification')


def test_masks_and_segments_of_the_image():
    """Outputs at the network's size are brought to the image's, here twice as large."""
    from mmdet.structures import DetDataSample

    from dwnet.toolboxes.mmdet.exported import ExportedDetector
    enter_scope(config_of('detection'))
    masks, segments = torch.full((1, 8, 8), .01), torch.full((8, 8), 3)
    masks[0, 2:4, 1:6], segments[2:4, 1:6] = .99, 1000
    outputs = dict(boxes=torch.tensor([[1., 2., 6., 4.]]), scores=torch.tensor([.5]), labels=torch.tensor([0]),
                   image_masks=masks, panoptic=segments)
    model = ExportedDetector(lambda _: outputs, {}, dict(type='DetDataPreprocessor'))
    sample = DetDataSample(metainfo=dict(img_shape=(8, 8), ori_shape=(16, 16), scale_factor=(.5, .5)))
    sample, = model.test_step(dict(inputs=[torch.zeros(3, 8, 8)], data_samples=[sample]))
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:8, 2:12] = True
    assert torch.equal(sample.pred_instances.masks[0], expected)
    assert sample.pred_instances.bboxes.tolist() == [[2., 4., 12., 8.]]
    assert torch.equal(sample.pred_panoptic_seg.sem_seg[0] == 1000, expected)
    assert sample.pred_panoptic_seg.sem_seg.unique().tolist() == [3, 1000]


def test_the_averaged_weights_are_in_the_file(exported):
    cfg = config_of('classification', custom_hooks=[dict(type='EMAHook'), dict(type='ProfilerHook')])
    assert [hook.type for hook in with_exported(cfg, exported('classification').path).custom_hooks] == ['ProfilerHook']


@pytest.mark.parametrize('record, message', [
    (dict(task='detection'), 'is a model for detection, and the config is for classification'),
    (dict(task='features'), 'has the feature maps of a backbone; export the model without --backbone'),
    (dict(labels=('cat', 'dog')), 'has 2 classes, and the config has 10'),
])
def test_a_file_that_does_not_fit(record, message, exported):
    file = exported('classification', **record)
    with pytest.raises(UserError, match=message):
        inferencer(with_exported(config_of('classification'), file.path))


def test_a_toolbox_that_nothing_exports(tmp_path):
    (tmp_path / 'pose.onnx').touch()
    with pytest.raises(UserError, match='models of mmpose cannot run from an exported file'):
        toolbox_of(dict(default_scope='mmpose')).exported_model(None, {}, {})
    with pytest.raises(UserError, match='gone.onnx is missing'):
        with_exported(config_of('classification'), tmp_path / 'gone.onnx')


@pytest.mark.parametrize('options, message', [
    *((['test', flag], f'{flag} is for PyTorch') for flag in ('--deploy', '--bf16', '--channels-last', '--compile')),
    (['test', '--launcher', 'pytorch'], 'is tested in one process'),
    (['infer', '--device', 'cpu'], '--device is not for --model'),
    (['infer', '--checkpoint', 'a.pth'], '--checkpoint is not for --model'),
])
def test_options_that_make_no_sense(options, message, exported):
    (command, *options), path, config = options, exported('classification').path, CONFIGS['classification']
    arguments = [config, path] if command == 'test' else ['data/digits', '--config', config, '--model', path]
    done = run_tool(f'tools/{command}.py', *arguments, *options)
    assert done.returncode == 2 and message in done.stderr


class Camera:
    """OpenCV's, with three frames; then Ctrl-C is pressed."""
    read_frames = 0

    def __init__(self, number: int) -> None:
        self.there = number == 1

    def get(self, _) -> float:
        return 0.

    def read(self):
        if not self.there:
            return False, None
        self.read_frames += 1
        if self.read_frames > 3:
            raise KeyboardInterrupt
        return True, np.full((64, 64, 3), 50 * self.read_frames, np.uint8)

    def release(self) -> None:
        pass


def test_a_camera_is_read_until_ctrl_c(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr('dwnet.deploy.inference.cv2.VideoCapture', Camera)
    infer = inferencer(CONFIGS['classification'], checkpoints / 'classification.pth')
    left_out = infer_files(infer, [Path('camera:1'), Path('camera:2')], tmp_path)
    assert left_out == {'camera:2': 'the camera gives no frame that OpenCV can read'}
    entry, = json.loads((tmp_path / 'predictions.json').read_text())['predictions']
    assert (entry['video'], entry['frames']) == ('camera:1', 3)
    lines = [json.loads(line) for line in (tmp_path / entry['predictions']).read_text().splitlines()]
    assert [line['frame'] for line in lines] == [0, 1, 2] and 0 < lines[0]['seconds'] < lines[2]['seconds']
    assert (tmp_path / entry['picture']).stat().st_size > 0
