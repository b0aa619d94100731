"""tools/infer.py and dwnet.apis.inferencer: what is written is what the model predicts."""
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, read_config, run_tool
from PIL import Image
from pycocotools import mask as coco_mask

from dwnet.apis import inferencer, init_model
from dwnet.deploy.inference import find_files, predict
from dwnet.deploy.inference import infer as infer_files
from dwnet.deploy.writing import Writer
from dwnet.errors import UserError

CONFIGS = {
    'classification': 'configs/classification/dwnet-nano_digits.py',
    'detection': 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
    'segmentation': 'configs/segmentation/upernet_dwnet-nano_digits.py',
}
NAMES = [f'digit {i}' for i in range(10)]


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Untrained weights of each task; the classifier's file brings its own names of the classes."""
    folder = tmp_path_factory.mktemp('weights')
    for task, config in CONFIGS.items():
        torch.manual_seed(1)
        model = init_model(read_config(config))
        meta = dict(dataset_meta=dict(classes=NAMES)) if task == 'classification' else {}
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f'{task}.pth')
    return folder


@pytest.fixture(scope='module')
def photos(small_digits, tmp_path_factory) -> Path:
    """Five scenes, one of another size, two folders deep, and two files that are no images."""
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'more').mkdir()
    for i, scene in enumerate(sorted((small_digits / 'scenes/test').glob('*.jpg'))[:5]):
        shutil.copy(scene, folder / ('more' if i > 2 else '.') / f'{i}.jpg')
    Image.open(folder / '1.jpg').resize((100, 80)).save(folder / '1.png')
    (folder / 'more/broken.jpg').write_bytes((folder / '0.jpg').read_bytes()[:700])
    (folder / 'notes.txt').write_text('no image')
    return folder


def infer(task: str, weights: Path, out: Path, *images, **options):
    extra = [part for name, value in options.items() for part in (f'--{name}', value)]
    done = run_tool('tools/infer.py', *images, '--config', CONFIGS[task], '--checkpoint', weights / f'{task}.pth',
                    '--out', out, '--device', 'cpu', *extra)
    content = json.loads((out / 'predictions.json').read_text()) if (out / 'predictions.json').exists() else None
    return done, content


@pytest.mark.parametrize('task', CONFIGS)
def test_what_is_written_is_what_the_model_predicts(task, weights, photos, tmp_path):
    done, content = infer(task, weights, tmp_path, photos, **{'batch-size': 3})
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        'error: 1 of 7 files could not be read or predicted:', f'- {photos}/more/broken.jpg: its end is missing']
    assert content['left_out'] == {f'{photos}/more/broken.jpg': 'its end is missing'}
    found = {Path(entry['image']).relative_to(photos): entry for entry in content['predictions']}
    assert [str(p) for p in found] == ['0.jpg', '1.jpg', '1.png', '2.jpg', 'more/3.jpg', 'more/4.jpg']
    expected = inferencer(CONFIGS[task], weights / f'{task}.pth')
    for path, entry in found.items():
        image = cv2.imread(str(photos / path))
        assert (entry['height'], entry['width']) == image.shape[:2]
        sample, = predict(expected, [image])
        assert (tmp_path / entry['picture']).is_file()
        if task == 'classification':
            scores = {c['class']: c['score'] for c in entry['classes']}
            best = sample.pred_score.topk(5)
            assert list(scores) == [NAMES[i] for i in best.indices]
            assert np.allclose(list(scores.values()), best.values, atol=2e-6)
        elif task == 'detection':
            instances = sample.pred_instances
            assert len(instances) == len(entry['objects']) > 0
            assert [o['label'] for o in entry['objects']] == instances.labels.tolist()
            assert np.allclose([o['box'] for o in entry['objects']], instances.bboxes, atol=.01)
            masks = np.stack([coco_mask.decode(o['mask']) for o in entry['objects']])
            assert masks.shape[1:] == image.shape[:2] and (masks == instances.masks.numpy()).all()
        else:
            labels = np.asarray(Image.open(tmp_path / entry['labels']))
            assert (labels == sample.pred_sem_seg.data[0].numpy()).all()
            names = content['classes']
            assert entry['shares'] == {names[i]: round((labels == i).mean(), 6) for i in np.unique(labels)}
    assert len({entry['picture'] for entry in found.values()}) == 6  # 1.jpg and 1.png, too


@pytest.mark.parametrize('task', CONFIGS)
def test_strips_and_single_pixels(task, weights, photos, tmp_path):
    """Inference goes on after an image of which the detector's resizing leaves nothing."""
    files = [tmp_path / name for name in ('1_tall.png', '2_wide.png', '3_pixel.png')]
    for file, size in zip(files, ((3, 2000), (2000, 3), (1, 1))):
        Image.new('RGB', size, 'red').save(file)
    infer_tool = inferencer(CONFIGS[task], weights / f'{task}.pth')
    left_out = infer_files(infer_tool, [*files, photos / '0.jpg'], tmp_path / 'out', 4)
    strips = files[:2] if task == 'detection' else []
    assert {file: reason.partition(' (')[0] for file, reason in left_out.items()} == {
        str(f): f'{size} pixels cannot be resized or predicted' for f, size in zip(strips, ('3×2000', '2000×3'))}
    written = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(written['predictions']) == 4 - len(strips) and written['left_out'] == left_out
    for entry in written['predictions']:
        assert max(Image.open(tmp_path / 'out' / entry['picture']).size) <= 2048


def test_frames_of_a_video(weights, photos, tmp_path):
    clip = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*'mp4v'), 4, (128, 128))
    for name in ('0.jpg', '2.jpg', 'more/3.jpg', 'more/4.jpg', '0.jpg'):
        writer.write(cv2.imread(str(photos / name)))
    writer.release()
    (tmp_path / 'empty.avi').write_bytes(b'nothing')
    done, content = infer('classification', weights, tmp_path / 'out', clip, tmp_path / 'empty.avi', photos / '0.jpg',
                          **{'batch-size': 2})
    assert done.returncode == 2 and 'empty.avi: it has no frame that OpenCV can read' in done.stderr
    still, video = content['predictions']
    assert still['image'].endswith('0.jpg') and video['frames'] == 5
    lines = [json.loads(line) for line in (tmp_path / 'out' / video['predictions']).read_text().splitlines()]
    assert [(line['frame'], line['seconds']) for line in lines] == [(i, i / 4) for i in range(5)]
    model, frames = inferencer(CONFIGS['classification'], weights / 'classification.pth'), cv2.VideoCapture(str(clip))
    for line in lines:
        sample, = predict(model, [frames.read()[1]])
        assert line['classes'][0]['class'] == NAMES[int(sample.pred_label)]
    drawn = cv2.VideoCapture(str(tmp_path / 'out' / video['picture']))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and drawn.get(cv2.CAP_PROP_FPS) == 4


def write_clip(path: Path, pictures, code='mp4v') -> Path:
    path.parent.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 4, (64, 64))
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


@pytest.mark.parametrize('by', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_video_can_be_opened(by, weights, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / 'clip.mp4', np.zeros((9, 64, 64, 3), np.uint8))
    describe, before = Writer.describe, signal.getsignal(signal.SIGTERM)

    def interrupted(writer, sample, name: Path) -> dict:
        if name.name == '000006':
            os.kill(os.getpid(), by)
        return describe(writer, sample, name)

    monkeypatch.setattr(Writer, 'describe', interrupted)
    model = inferencer(CONFIGS['classification'], weights / 'classification.pth')
    with pytest.raises(KeyboardInterrupt) as kept:  # with all that its frames hold
        infer_files(model, [clip], tmp_path / 'out')
    assert cv2.VideoCapture(str(tmp_path / 'out/videos/clip.mp4')).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert len((tmp_path / 'out/videos/clip.jsonl').read_text().splitlines()) == 6
    assert kept and signal.getsignal(signal.SIGTERM) is before


def test_label_images_of_namesakes_are_kept_apart(weights, tmp_path):
    frames = [np.full((64, 64, 3), value, np.uint8) for value in (0, 255)]
    files = [write_clip(tmp_path / 'v.mp4', frames), write_clip(tmp_path / 'v.avi', frames, 'MJPG'),
             tmp_path / 'v/000000.jpg']
    files[2].parent.mkdir()
    cv2.imwrite(str(files[2]), frames[0])
    assert infer_files(inferencer(CONFIGS['segmentation'], weights / 'segmentation.pth'), files, tmp_path / 'out',
                       pictures=False) == {}
    assert sorted(str(path.relative_to(tmp_path / 'out/labels')) for path in (tmp_path / 'out/labels').rglob('*.png')) \
        == [f'v.{kind}/00000{i}.png' for kind in ('avi', 'mp4') for i in range(2)] + ['v/000000.png']


def test_labels_of_a_head_of_one_channel(tmp_path, monkeypatch):
    """mmseg gives them as 0. and 1."""
    monkeypatch.setattr('dwnet.deploy.writing.make_visualizer', lambda *_: None)
    model = SimpleNamespace(cfg=None, dataset_meta=dict(classes=['ground', 'road'], palette=[[0, 0, 0], [255, 0, 0]]))
    writer = Writer(SimpleNamespace(model=model), [tmp_path / 'a.jpg'], tmp_path / 'out', .5, pictures=False)
    written = writer._segments(np.array([[0., 1.], [1., 1.]], np.float32), Path('a.jpg'))
    assert written['shares'] == dict(ground=.25, road=.75)
    assert np.array(Image.open(tmp_path / 'out' / written['labels'])).tolist() == [[0, 1], [1, 1]]


def test_a_cut_video_is_named(weights, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    clip = write_clip(tmp_path / 'clip.avi', noise, 'MJPG')
    clip.write_bytes(clip.read_bytes()[:clip.stat().st_size // 2])
    done, content = infer('classification', weights, tmp_path / 'out', clip)
    video, = content['predictions']
    assert 5 < video['frames'] < 15 and len((tmp_path / 'out' / video['predictions']).read_text().splitlines()) > 5
    assert content['left_out'] == {
        str(clip): f"it ends or is damaged after {video['frames']} of 20 frames; these are predicted"}
    assert done.returncode == 2 and f"after {video['frames']} of 20 frames" in done.stderr
    assert '1 of 1 files predicted' in done.stdout


def test_what_cannot_be_written_is_an_error_of_one_line(weights, photos, tmp_path, monkeypatch):
    from mmdet.structures import DetDataSample
    from mmengine.structures import PixelData
    classify = inferencer(CONFIGS['classification'], weights / 'classification.pth')
    depth = DetDataSample(pred_depth_map=PixelData(data=torch.zeros(1, 8, 8)))
    monkeypatch.setattr('dwnet.deploy.inference.predict', lambda *_: [depth])
    with pytest.raises(UserError, match='of the kind pred_depth_map cannot be written: only classes, objects, k'):
        infer_files(classify, [photos / '0.jpg'], tmp_path / 'out')
    (tmp_path / 'taken').touch()
    for out in (tmp_path / 'taken', tmp_path / 'taken/below'):
        with pytest.raises(UserError, match='cannot be a folder: there is a file of this name'):
            infer_files(classify, [photos / '0.jpg'], out)


@pytest.mark.parametrize('arguments, message', [
    (['nowhere/*.jpg', '--checkpoint', 'x.pth'], 'nowhere/*.jpg is missing'),
    (['dwnet', '--checkpoint', 'x.pth'], 'no images in dwnet, but '),
    (['docs/images/demo.webp', '--checkpoint', 'x.pth'], 'weights x.pth are missing'),
    (['docs/images/demo.webp'], '--checkpoint FILE or --model FILE is missing'),
    (['docs/images/demo.webp', '--checkpoint', 'x.pth', '--batch-size', '0'], '--batch-size 0'),
    (['docs/images/demo.webp', '--checkpoint', 'x.pth', '--device', 'nonsense'], '--device nonsense'),
])
def test_mistakes_end_in_one_line(arguments, message, tmp_path):
    done = run_tool('tools/infer.py', *arguments, '--config', CONFIGS['classification'], '--out', tmp_path)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr


def test_files_are_found_once(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert find_files(['0.jpg', './more/../0.jpg', str(photos / '0.jpg')]) == [Path('0.jpg')]
    files = find_files([f'{photos}/*.jpg', str(photos), f'{photos}/**/4.jpg'])
    assert [str(f.relative_to(photos)) for f in files] == [
        '0.jpg', '1.jpg', '2.jpg', '1.png', 'more/3.jpg', 'more/4.jpg', 'more/broken.jpg']


@pytest.mark.parametrize('meta', [dict(classes='abc'), dict(classes=[1, 2]), dict(classes=NAMES, palette='red'), [], 3])
def test_names_from_a_file_may_be_anything(meta, weights, tmp_path):
    state = torch.load(weights / 'classification.pth')['state_dict']
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=meta)), tmp_path / 'w.pth')
    model = init_model(CONFIGS['classification'], tmp_path / 'w.pth')
    if isinstance(meta, dict) and 'palette' in meta:
        assert model.dataset_meta['classes'] == tuple(NAMES) and len(model.dataset_meta['palette']) == 10
    else:
        assert model.dataset_meta == {}  # folders that are not read have no names


def test_inferencers_are_the_toolboxes_own(weights, photos):
    kinds = {task: type(inferencer(config, weights / f'{task}.pth')).__name__ for task, config in CONFIGS.items()}
    assert kinds == dict(classification='ImageClassificationInferencer', detection='DetInferencer',
                         segmentation='MMSegInferencer')
    result, = inferencer(CONFIGS['classification'], weights / 'classification.pth')(str(photos / '0.jpg'))
    assert result['pred_class'] in NAMES


@pytest.mark.long
def test_the_notebook_runs():
    """In a kernel of its own; the small classifier gets most of its eight images right."""
    import ast

    nbformat = pytest.importorskip('nbformat', reason='waits for what `make docs` installs')
    from nbclient import NotebookClient
    notebook = nbformat.read(ROOT / 'docs/notebook.ipynb', 4)
    printed = [ast.literal_eval(output.data['text/plain']) for cell in notebook.cells if cell.cell_type == 'code'
               for output in cell.outputs if output.get('data', {}).get('text/plain', '').startswith('[(')]
    NotebookClient(notebook, timeout=600, resources=dict(metadata=dict(path=str(ROOT / 'docs')))).execute()
    answers = next(ast.literal_eval(output.data['text/plain']) for cell in notebook.cells if cell.cell_type == 'code'
                   for output in cell.outputs if output.get('data', {}).get('text/plain', '').startswith('[('))
    assert sum(truth == answer for truth, answer, _ in answers) >= 5
    assert len(printed) == 1 and [row[0] for row in printed[0]] == [row[0] for row in answers], 'run again, and saved'


def test_panoptic_segments(tmp_path):
    """Segments in COCO's panoptic form, drawn too; pixels of no segment are 0."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import PixelData
    meta = dict(classes=('cat', 'sky'), palette=[(255, 0, 0), (0, 0, 255)])
    model = SimpleNamespace(cfg=read_config(CONFIGS['detection']), dataset_meta=meta)
    writer = Writer(SimpleNamespace(model=model), [tmp_path / 'a.jpg'], tmp_path / 'out', .5, pictures=True)
    ids = np.repeat(np.repeat([[0, 0, 1000], [1, 2, 2]], 20, 0), 20, 1)  # two cats, the sky, and nothing
    sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=torch.from_numpy(ids)[None]))
    entry = writer.write(tmp_path / 'a.jpg', np.zeros((40, 60, 3), np.uint8), sample)
    assert [(s['class'], s['id'], s['share']) for s in entry['segments']] == [
        ('cat', 1, .333333), ('sky', 2, .166667), ('cat', 3, .166667)]
    with Image.open(tmp_path / 'out' / entry['panoptic']) as image:
        assert np.asarray(image)[::20, ::20].tolist() == [
            [[1, 0, 0], [1, 0, 0], [3, 0, 0]], [[2, 0, 0], [0, 0, 0], [0, 0, 0]]]
    with Image.open(tmp_path / 'out' / entry['picture']) as picture:
        drawn = np.asarray(picture.convert('RGB'))
    height, width = drawn.shape[:2]
    assert drawn[height // 4, width // 4].argmax() == 0 and drawn[3 * height // 4, width // 6].argmax() == 2
