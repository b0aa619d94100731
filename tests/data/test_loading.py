"""Images of all kinds, whole ones against Pillow, damaged ones by name."""
import copy
import io

import mmcv
import numpy as np
import pytest
from conftest import read_config
from mmengine.registry import TRANSFORMS, init_default_scope
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from dwnet.engine import Runner
from dwnet.toolboxes.checked import with_checks

DETECTION = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'


@pytest.fixture(scope='module')
def photo() -> Image.Image:
    return Image.fromarray(load_sample_image('china.jpg')).resize((96, 64))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6  # orientation: a quarter to the right
    return exif


def see_through(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(100)
    return image


# name → how it is written, and the largest difference to Pillow's pixels
KINDS = {
    'colour.jpg': (lambda p: encode(p, 'JPEG'), 1),
    'progressive.jpg': (lambda p: encode(p, 'JPEG', progressive=True), 1),
    'grey.jpg': (lambda p: encode(p.convert('L'), 'JPEG'), 1),
    'cmyk.jpg': (lambda p: encode(p.convert('CMYK'), 'JPEG'), 2),
    'turned.jpg': (lambda p: encode(p, 'JPEG', exif=turned()), 1),
    'colour.png': (lambda p: encode(p, 'PNG'), 0),
    'grey.png': (lambda p: encode(p.convert('L'), 'PNG'), 0),
    'bilevel.png': (lambda p: encode(p.convert('1'), 'PNG'), 0),
    'palette.png': (lambda p: encode(p.convert('P'), 'PNG'), 0),
    'transparent_palette.png': (lambda p: encode(p.convert('P'), 'PNG', transparency=3), 0),
    'alpha.png': (lambda p: encode(see_through(p), 'PNG'), 0),
    'grey_alpha.png': (lambda p: encode(p.convert('LA'), 'PNG'), 0),
    'one_pixel.png': (lambda p: encode(p.resize((1, 1)), 'PNG'), 0),
    'one_pixel.jpg': (lambda p: encode(p.resize((1, 1)), 'JPEG'), 1),
    'turned.png': (lambda p: encode(p, 'PNG', exif=turned()), 0),
    'colour.webp': (lambda p: encode(p, 'WEBP', lossless=True), 0),
    'colour.bmp': (lambda p: encode(p, 'BMP'), 0),
    'colour.tiff': (lambda p: encode(p, 'TIFF'), 0),
}


def load(path, content: bytes, scope: str = 'mmdet', **options) -> dict:
    path.write_bytes(content)
    init_default_scope(scope)
    return TRANSFORMS.build(dict(type='dwnet.LoadWholeImage', **options))(dict(img_path=str(path)))


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_is_read_as_pillow_reads_it(name, photo, tmp_path):
    write, tolerance = KINDS[name]
    content = write(photo)
    results = load(tmp_path / name, content)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert('RGB')
    pixels = np.asarray(expected)[..., ::-1]
    assert results['img'].dtype == np.uint8 and results['img'].shape == pixels.shape
    assert results['img_shape'] == results['ori_shape'] == (expected.height, expected.width)
    assert np.abs(results['img'].astype(int) - pixels).max() <= tolerance
    assert np.array_equal(results['img'], mmcv.imfrombytes(content)), "not as mmcv's own transform"


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_of_sixteen_bits_the_upper_eight_are_read(kind, photo, tmp_path):
    values = np.asarray(photo.convert('L')).astype(np.uint16) * 256 + np.arange(96, dtype=np.uint16)
    image = load(tmp_path / 'deep', encode(Image.fromarray(values), kind))['img']
    assert np.abs(image - (values / 256)[..., None]).max() <= 1


@pytest.mark.parametrize('name', [
    'colour.jpg', 'progressive.jpg', 'colour.png', 'colour.webp', 'colour.bmp', 'colour.tiff'])
@pytest.mark.parametrize('part', [0, .01, .3, .9, .999])
def test_a_truncated_image_is_named(name, part, photo, tmp_path, monkeypatch):
    content = KINDS[name][0](photo)
    # an OpenCV that decodes what is there, as those before 4.13 do
    monkeypatch.setattr('mmcv.imfrombytes', lambda *_, **__: np.zeros((64, 96, 3), np.uint8))
    with pytest.raises(ValueError, match=f'{name} is no whole image: '):
        load(tmp_path / name, content[:int(part * len(content))])


def test_an_end_within_the_thumbnail_is_not_the_end(photo, tmp_path):
    thumbnail = encode(photo.resize((8, 8)), 'JPEG')
    content = encode(photo, 'JPEG', comment=thumbnail)
    assert content.count(b'\xff\xd9') == 2
    load(tmp_path / 'a.jpg', content)
    with pytest.raises(ValueError, match='its end is missing'):
        load(tmp_path / 'a.jpg', content[:-2])


def test_a_flipped_bit_in_a_png_is_named(photo, tmp_path):
    content = bytearray(KINDS['colour.png'][0](photo))
    content[len(content) // 2] ^= 4
    with pytest.raises(ValueError, match='the checksum of its part IDAT is wrong'):
        load(tmp_path / 'a.png', bytes(content))


@pytest.mark.parametrize('content, message', [
    (b'', 'it is empty'), (b'<html>404</html>', 'its format is unknown'),
    (b'P6 100000 100000 255\n', 'exceeds limit')], ids=['empty', 'text', 'huge'])
def test_what_is_no_image_is_named(content, message, tmp_path):
    with pytest.raises(ValueError, match=f'a.jpg is no whole image: .*{message}'):
        load(tmp_path / 'a.jpg', content)
    with pytest.raises(ValueError, match='/dev/zero is no whole image: it is no file'):
        TRANSFORMS.build(dict(type='dwnet.LoadWholeImage'))(dict(img_path='/dev/zero'))


def test_another_size_than_the_annotation_says(photo, tmp_path):
    transform = TRANSFORMS.build(dict(type='dwnet.LoadWholeImage'))
    path = tmp_path / 'a.png'
    path.write_bytes(encode(photo, 'PNG'))
    for height, width in ((64, 96), (96, 64)):  # or turned by EXIF
        transform(dict(img_path=str(path), height=height, width=width))
    with pytest.raises(ValueError, match='it has 96×64 pixels, and its annotation says 96×65'):
        transform(dict(img_path=str(path), height=65, width=96))


@pytest.mark.parametrize('config', ['configs/classification/dwnet-nano_digits.py', DETECTION,
                                    'configs/segmentation/upernet_dwnet-nano_digits.py'])
def test_what_the_runner_builds_reads_whole_images(config, small_digits):
    cfg = read_config(config)
    for part in ('train', 'val'):
        loader = copy.deepcopy(cfg[f'{part}_dataloader'])
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(small_digits)
        dataset = Runner.build_dataloader(loader).dataset
        assert type(dataset.pipeline.transforms[0]).__name__ == 'LoadWholeImage'
        assert dataset[0]['inputs'].shape[0] == 3
        assert (type(dataset).__name__ == 'CheckedCocoDataset') == (config == DETECTION)


def test_only_what_is_ours_to_replace_is_replaced():
    plain = dict(type='RepeatDataset', dataset=dict(type='mmdet.CocoDataset', pipeline=[
        dict(type='LoadImageFromFile', to_float32=True), dict(type='LoadImageFromFile', ignore_empty=True),
        dict(type='RandomChoice', transforms=[[dict(type='mmcv.LoadImageFromFile')]]), dict(type='PackDetInputs')]))
    before = copy.deepcopy(plain)
    checked = with_checks(plain)['dataset']
    assert plain == before and checked['type'] == 'dwnet.CheckedCocoDataset'
    assert [t['type'] for t in checked['pipeline']] == [
        'dwnet.LoadWholeImage', 'LoadImageFromFile', 'RandomChoice', 'PackDetInputs']
    assert checked['pipeline'][0]['to_float32'] is True
    assert checked['pipeline'][2]['transforms'][0][0]['type'] == 'dwnet.LoadWholeImage'
