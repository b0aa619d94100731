"""Images of other channels and bits through the command lines: trained, tested, predicted, drawn, exported."""
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
from conftest import read_config, run_tool
from mmengine.config import Config
from PIL import Image
from timm.models import adapt_input_conv

from dwnet.apis import inferencer, init_model
from dwnet.data.loading import LoadWholeImage
from dwnet.data.pixels import pixels_of
from dwnet.deploy.inference import infer
from dwnet.toolboxes.pixels import use_pixels

CLASSIFIER = 'configs/classification/dwnet-nano_digits.py'
SEGMENTOR = 'configs/segmentation/upernet_dwnet-nano_digits.py'
STEM = 'backbone.patch_embed.proj.weight'


def write_bands(root: Path, **numbers: int) -> None:
    """Five bands of 16 bits in ROOT/images, and label images in ROOT/masks; a square is dark in the second band."""
    random = np.random.default_rng(0)
    for part, number in numbers.items():
        for i in range(number):
            labels = np.zeros((64, 64), np.uint8)
            labels[16:40, 8 * i:8 * i + 24] = 1
            bands = random.normal([500, 3000, 3000, 9000, 200], 100, (64, 64, 5))
            bands[labels == 1, 1] -= 2000
            for folder in ('images', 'masks'):
                (root / folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / f'images/{part}/{i}.tif', bands.clip(0).astype(np.uint16),
                             photometric='minisblack', planarconfig='contig')
            Image.fromarray(labels).save(root / f'masks/{part}/{i}.png')


@pytest.mark.long
def test_five_bands_from_rgb_weights_to_an_onnx_file(tmp_path):
    write_bands(tmp_path / 'my', train=4, val=2)
    rgb = init_model(SEGMENTOR)
    torch.save(dict(state_dict=rgb.state_dict()), tmp_path / 'rgb.pth')
    work = tmp_path / 'work'
    done = run_tool('tools/train.py', SEGMENTOR, '--data-root', tmp_path / 'my', '--load-from', tmp_path / 'rgb.pth',
                    '--epochs', 1, '--lr', 0, '--work-dir', work, '--cfg-options', 'train_dataloader.num_workers=0',
                    'val_dataloader.num_workers=0', 'test_dataloader.num_workers=0')
    assert done.returncode == 0, done.stderr
    assert 'the images have 5 channels of uint16: mean and standard deviation are computed' in done.stdout
    assert 'from RGB to the channels of the images: backbone.patch_embed.proj' in done.stdout
    assert 'report: ' in done.stdout and (work / 'report.html').is_file()
    config, checkpoint = work / Path(SEGMENTOR).name, work / 'epoch_1.pth'
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    expected = adapt_input_conv(5, rgb.state_dict()[STEM])
    torch.testing.assert_close(weights[STEM], expected, atol=1e-4, rtol=0)  # the rate is almost 0
    mean = Config.fromfile(config).model.data_preprocessor.mean
    np.testing.assert_allclose(mean, [500, 2700, 3000, 9000, 200], rtol=.05)

    done = run_tool('tools/test.py', config, checkpoint, '--show-dir', tmp_path / 'show', '--work-dir', tmp_path / 't')
    assert done.returncode == 0 and 'mIoU' in done.stdout, done.stderr
    pictures = [Image.open(tmp_path / f'show/{i}.tif_{i}.png') for i in range(2)]
    assert all(picture.size == (512, 256) and len(picture.getcolors(9**9)) > 500 for picture in pictures)

    done = run_tool('tools/export.py', config, checkpoint, '--out', tmp_path / 'm.onnx')
    assert done.returncode == 0 and 'image: 5 channels' in done.stdout, done.stderr

    Image.new('RGB', (64, 64)).save(tmp_path / 'my/images/val/photo.png')
    done = run_tool('tools/infer.py', tmp_path / 'my/images/val', '--config', config, '--checkpoint', checkpoint,
                    '--out', tmp_path / 'out')
    assert done.returncode == 2 and 'photo.png: it has 3 channels, and the model takes 5' in done.stderr
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert [Path(entry['image']).name for entry in content['predictions']] == ['0.tif', '1.tif']
    session = onnxruntime.InferenceSession(tmp_path / 'm.onnx')
    for entry in content['predictions']:  # the file of ONNX takes the pixels as they are
        image = tifffile.imread(entry['image']).astype(np.float32).transpose(2, 0, 1)
        logits, = session.run(None, dict(image=image[None]))
        labels = np.asarray(Image.open(tmp_path / 'out' / entry['labels']))
        assert (logits[0].argmax(0) == labels).mean() > .99
        assert len(Image.open(tmp_path / 'out' / entry['picture']).getcolors(9**9)) > 500


@pytest.mark.parametrize('most', [255, 4095])
def test_grey_and_twelve_bits_are_predicted_as_they_are(most, tmp_path):
    """One channel of 8 bits, and of 12 bits in 16: no need for more than the written config; nothing is black."""
    values = np.random.default_rng(0).uniform(0, most, (6, 64, 64)).astype(np.uint8 if most == 255 else np.uint16)
    files = [tmp_path / f'{i}.png' for i in range(len(values))]
    for file, pixels in zip(files, values):
        Image.fromarray(pixels).save(file)
    cfg = read_config(CLASSIFIER).copy()
    use_pixels(cfg, pixels_of(files))
    cfg.dump(tmp_path / 'config.py')
    predict = inferencer(tmp_path / 'config.py')
    mean, std = (cfg.model.data_preprocessor[name][0] for name in ('mean', 'std'))
    odd = tmp_path / 'odd.png'  # of another type: grey of 16 bits, or of 8
    Image.fromarray(values[0].astype(np.uint16 if most == 255 else np.uint8)).save(odd)
    left_out = infer(predict, [*files, odd], tmp_path / 'out', batch_size=3)
    assert left_out == {str(odd): 'its values are ' + ('uint16, and the model takes uint8' if most == 255 else
                                                       'uint8, and the model takes uint16')}
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    for entry, pixels in zip(content['predictions'], values, strict=True):
        image = torch.tensor((pixels[None, None] - mean) / std, dtype=torch.float32)
        with torch.no_grad():
            scores = predict.model(image, mode='tensor').softmax(1)[0]
        assert entry['classes'][0]['label'] == int(scores.argmax())
        assert entry['classes'][0]['score'] == pytest.approx(float(scores.max()), abs=1e-5)
        picture = np.asarray(Image.open(tmp_path / 'out' / entry['picture']))
        assert picture.min() < 30 and picture.max() > 225


def test_animations_are_said(tmp_path, capsys):
    frames = [Image.new('RGB', (64, 64), (90 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / 'moving.gif', save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / 'still.gif')
    Image.fromarray(np.zeros((64, 64), np.float32)).save(tmp_path / 'real.tif')
    torch.save(init_model(CLASSIFIER).state_dict(), tmp_path / 'w.pth')
    done = run_tool('tools/infer.py', tmp_path, '--config', CLASSIFIER, '--checkpoint', tmp_path / 'w.pth',
                    '--out', tmp_path / 'out', '--no-pictures')
    assert f'of 1 animations the first frame is predicted: {tmp_path}/moving.gif' in done.stdout
    entries = json.loads((tmp_path / 'out/predictions.json').read_text())['predictions']
    assert {Path(entry['image']).name: entry.get('frames') for entry in entries} == {'moving.gif': 3, 'still.gif': None}
    assert done.returncode == 2 and 'real.tif: it has 1 channel of float32, and images of 8 bits' in done.stderr


def test_what_fails_for_one_image_costs_that_image(tmp_path, monkeypatch):
    files = [tmp_path / f'{i}.png' for i in range(3)]
    for i, file in enumerate(files):
        Image.new('RGB', (64, 64), (100 * i, 0, 0)).save(file)
    model = inferencer(CLASSIFIER)
    whole, draw = model.forward, 'dwnet.deploy.writing.draw'

    def forward(batch, *args):
        if (batch['inputs'][:, 2].amax((1, 2)) == 100).any():
            raise MemoryError('no room')
        return whole(batch, *args)

    monkeypatch.setattr(model, 'forward', forward)
    left_out = infer(model, files, tmp_path / 'out', batch_size=3)
    assert left_out == {str(files[1]): '64×64 pixels cannot be resized or predicted (MemoryError: no room)'}
    assert len(list((tmp_path / 'out/pictures').iterdir())) == 2
    monkeypatch.setattr(draw, lambda *_: 1 / 0)
    assert infer(model, files[:1], tmp_path / 'o') == {str(files[0]): 'ZeroDivisionError: division by zero'}


def test_videos_of_models_for_other_images(tmp_path):
    """Frames become grey for a model of grey images; a model of other images is told from a video."""
    import cv2
    clip = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*'mp4v'), 4, (64, 64))
    for _ in range(2):
        writer.write(np.full((64, 64, 3), 90, np.uint8))
    writer.release()
    for kind, expected in ((np.uint8, {}), (np.uint16, {
            str(clip): 'a video has colours of 8 bits, and the model takes images of another kind'})):
        Image.fromarray(np.arange(64, dtype=kind).reshape(8, 8)).save(tmp_path / 'a.png')
        cfg = read_config(CLASSIFIER).copy()
        use_pixels(cfg, pixels_of([tmp_path / 'a.png']))
        assert infer(inferencer(cfg), [clip], tmp_path / 'out') == expected


def test_reader_of_grey_colours(tmp_path):
    """A colour image among grey ones becomes grey."""
    Image.new('RGB', (8, 8), (250, 10, 10)).save(tmp_path / 'a.png')
    grey = LoadWholeImage(color_type='grayscale').transform(dict(img_path=str(tmp_path / 'a.png')))['img']
    assert grey.shape == (8, 8) and 80 < grey[0, 0] < 83
