"""Images of any channels and bits: against what was written; the kind of a set; the limit of the size."""
import importlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from mmengine.registry import TRANSFORMS
from PIL import Image

import dwnet.data
from dwnet.data.decoding import Kind, decode, kind_of
from dwnet.data.loading import check_whole
from dwnet.data.pixels import pixels_of
from dwnet.data.sizes import read_sizes
from dwnet.errors import UserError

RANDOM = np.random.default_rng(0)
BANDS = RANDOM.integers(0, 60000, (20, 30, 5), np.uint16)
EIGHT = RANDOM.integers(0, 256, (20, 30, 5), np.uint8)
REAL = RANDOM.normal(size=(20, 30, 5)).astype(np.float32)
CONTIGUOUS = dict(photometric='minisblack', planarconfig='contig')


def tiff(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def array(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def image(pixels: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """Also colours of 16 bits, which Pillow does not write."""
    import cv2
    return cv2.imencode('.png', pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]])[1].tobytes()


# name → content, and its pixels
FILES = {
    'bands.tif': (tiff(BANDS, **CONTIGUOUS), BANDS),
    'planes.tif': (tiff(np.moveaxis(BANDS, -1, 0), photometric='minisblack', planarconfig='separate'), BANDS),
    'pages.tif': (tiff(np.moveaxis(BANDS, -1, 0)), BANDS),
    'as_it_comes.tif': (tiff(BANDS), BANDS),
    'packed.tif': (tiff(BANDS, compression='zlib', **CONTIGUOUS), BANDS),
    'colours_of_16_bits.tif': (tiff(BANDS[..., :3], photometric='rgb'), BANDS[..., :3]),
    'grey_of_16_bits.tif': (tiff(BANDS[..., 0]), BANDS[..., :1]),
    'lzw.tif': (image(BANDS[..., 0], 'TIFF', compression='tiff_lzw'), BANDS[..., :1]),
    'real.tif': (image(REAL[..., 0], 'TIFF'), REAL[..., :1]),
    'four.tif': (tiff(EIGHT[..., :4], **CONTIGUOUS), EIGHT[..., :4]),
    'grey_of_16_bits.png': (image(BANDS[..., 0], 'PNG'), BANDS[..., :1]),
    'colours_of_16_bits.png': (png(BANDS[..., :3]), BANDS[..., :3]),
    'four_of_16_bits.png': (png(BANDS[..., :4]), BANDS[..., :4]),
    'grey.png': (image(EIGHT[..., 0], 'PNG'), EIGHT[..., :1]),
    'colours.png': (image(EIGHT[..., :3], 'PNG'), EIGHT[..., :3]),
    'transparent.png': (image(EIGHT[..., :4], 'PNG'), EIGHT[..., :4]),
    'grey_transparent.png': (image(EIGHT[..., :2], 'PNG'), EIGHT[..., :2]),
    'colours.bmp': (image(EIGHT[..., :3], 'BMP'), EIGHT[..., :3]),
    'rows.npy': (array(BANDS), BANDS),
    'planes.npy': (array(np.moveaxis(REAL, -1, 0)), REAL),
    'grey.npy': (array(EIGHT[..., 0]), EIGHT[..., :1]),
}


@pytest.mark.parametrize('name', FILES)
def test_every_kind_is_decoded_as_it_was_written(name, tmp_path):
    content, pixels = FILES[name]
    found = decode(content)
    assert found.dtype == pixels.dtype and found.shape == pixels.shape and (found == pixels).all()
    (tmp_path / name).write_bytes(content)
    assert kind_of(tmp_path / name) == Kind(pixels.shape[-1], str(pixels.dtype), 'transparent' in name
                                            or name == 'four_of_16_bits.png')
    assert read_sizes(tmp_path / name).upright == (30, 20)
    assert read(tmp_path / name, content, color_type='unchanged').shape == pixels.shape


def read(path: Path, content: bytes, **options) -> np.ndarray:
    path.write_bytes(content)
    return TRANSFORMS.build(dict(type='dwnet.LoadWholeImage', **options))(dict(img_path=str(path)))['img']


def test_three_channels_are_turned_round_and_others_stay(tmp_path):
    colours = read(tmp_path / 'a.tif', FILES['colours_of_16_bits.tif'][0], color_type='unchanged', to_float32=True)
    assert colours.dtype == np.float32 and (colours == BANDS[..., 2::-1]).all()
    bands = read(tmp_path / 'a.tif', FILES['bands.tif'][0], color_type='unchanged', to_float32=True)
    assert bands.dtype == np.float32 and (bands == BANDS).all()


@pytest.mark.parametrize('name', ['colours.npy', 'grey.npy'])
def test_arrays_and_animations_of_8_bits_are_read_as_colours(name, tmp_path):
    pixels = EIGHT[..., :3] if name == 'colours.npy' else EIGHT[..., 0]
    colours = np.broadcast_to(pixels[..., None], (20, 30, 3)) if pixels.ndim == 2 else pixels[..., ::-1]
    assert (read(tmp_path / name, array(pixels)) == colours).all()
    frames = [Image.new('P', (20, 10), i) for i in range(3)]
    frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
    first = np.asarray(Image.open(tmp_path / 'a.gif').convert('RGB'))
    assert (read(tmp_path / 'b.gif', (tmp_path / 'a.gif').read_bytes()) == first[..., ::-1]).all()


@pytest.mark.parametrize('name, message', [
    ('bands.tif', 'it has 5 channels of uint16, and images of 8 bits, grey or coloured, are expected'),
    ('rows.npy', 'it has 5 channels of uint16'), ('real.tif', 'it has 1 channel of float32')])
def test_other_pixels_are_named_where_colours_are_expected(name, message, tmp_path):
    with pytest.raises(ValueError, match=f'{name} is no whole image: {message}'):
        read(tmp_path / name, FILES[name][0])


@pytest.mark.parametrize('name', ['bands.tif', 'packed.tif', 'pages.tif', 'rows.npy', 'grey_of_16_bits.png'])
@pytest.mark.parametrize('part', [.05, .5, .98])
def test_a_truncated_image_is_named(name, part, tmp_path):
    content = FILES[name][0]
    with pytest.raises(ValueError, match=f'{name} is no whole image: '):
        read(tmp_path / name, content[:int(part * len(content))], color_type='unchanged')


@pytest.mark.parametrize('pixels, message', [
    (np.array([{}]), 'Object arrays cannot be loaded'), (np.zeros(5), r'array of float64 of the shape \(5,\)'),
    (np.array([[1, np.nan], [np.inf, 2]]), '2 of its 4 values are not finite')])
def test_arrays_that_are_no_image_are_named(pixels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tmp_path / 'a.npy', array(pixels), color_type='unchanged')


# --- The kind of a set ---------------------------------------------------------------------------------


def write(folder: Path, *contents: bytes, suffix: str = '.tif') -> list[Path]:
    files = [folder / f'{i}{suffix}' for i in range(len(contents))]
    for file, content in zip(files, contents):
        file.write_bytes(content)
    return files


def test_mean_and_std_are_those_of_the_training_images(tmp_path):
    images = [RANDOM.normal(2000, 300, (16, 12, 5)).clip(0).astype(np.uint16) for _ in range(6)]
    images[0][..., 4] += 500
    pixels = pixels_of(write(tmp_path, *(tiff(each, **CONTIGUOUS) for each in images)))
    values = np.stack(images).reshape(-1, 5)
    assert (pixels.channels, pixels.dtype, pixels.is_grey) == (5, 'uint16', False)
    np.testing.assert_allclose(pixels.mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(pixels.std, values.std(0), rtol=1e-5)


def test_twelve_bits_in_sixteen_have_their_own_range(tmp_path):
    pixels = pixels_of(write(tmp_path, image(RANDOM.integers(0, 4096, (20, 30), np.uint16), 'PNG'), suffix='.png'))
    assert (pixels.channels, pixels.dtype) == (1, 'uint16') and 1900 < pixels.mean[0] < 2200 and pixels.std[0] < 1300


def test_a_channel_of_one_value_is_not_divided_by_zero(tmp_path):
    pixels = pixels_of(write(tmp_path, array(np.full((4, 4, 2), 7, np.uint16)), suffix='.npy'))
    assert pixels.mean == [7, 7] and pixels.std == [1, 1]


@pytest.mark.parametrize('names, channels', [
    (['colours.png', 'colours.png'], None), (['grey.png', 'colours.png'], None), (['grey.png', 'grey.png'], 1),
    (['transparent.png', 'colours.png'], None), (['transparent.png', 'transparent.png'], 4)])
def test_8_bit_colour_stays_what_it_is(names, channels, tmp_path):
    """Grey images among colours become colours; transparency counts only where it has many steps."""
    pixels = pixels_of(write(tmp_path, *(FILES[name][0] for name in names), suffix='.png'))
    assert pixels is None if channels is None else (pixels.channels, pixels.dtype) == (channels, 'uint8')


def test_plain_transparency_is_no_channel(tmp_path):
    cut_out = EIGHT[..., :4].copy()
    cut_out[..., 3] = 255 * (cut_out[..., 3] > 100)
    assert pixels_of(write(tmp_path, image(cut_out, 'PNG'), suffix='.png')) is None
    grey = pixels_of(write(tmp_path, image(cut_out[..., 2:], 'PNG'), suffix='.png'))
    assert grey.is_grey and grey.mean[0] == pytest.approx(cut_out[..., 2].mean(), rel=1e-5)


def test_two_images_that_differ_are_named(tmp_path):
    files = write(tmp_path, *[FILES['bands.tif'][0]] * 3, tiff(BANDS[..., :4], **CONTIGUOUS))
    with pytest.raises(UserError, match=f'{files[0]} has 5 channels of uint16, and {files[3]} has 4 channels of uint1'):
        pixels_of(files)


def test_images_of_other_parts_have_to_fit(tmp_path):
    *train, val = write(tmp_path, *[FILES['bands.tif'][0]] * 2, FILES['real.tif'][0])
    with pytest.raises(UserError, match=f'{train[0]} has 5 channels of uint16, and {val} has 1 channel of float32'):
        pixels_of(train, [val])
    grey, colour = write(tmp_path, FILES['grey.png'][0], FILES['colours.png'][0], suffix='.png')
    assert pixels_of([grey], [colour]).is_grey and pixels_of([colour], [grey]) is None


def test_damaged_images_are_passed_over_and_named_if_there_are_no_others(tmp_path):
    files = write(tmp_path, b'', FILES['bands.tif'][0], FILES['bands.tif'][0][:300])
    assert pixels_of(files).channels == 5
    with pytest.raises(UserError, match=f'{files[0]} cannot be read, nor can any other of 1 training images'):
        pixels_of(files[:1])


# --- The largest image ---------------------------------------------------------------------------------


def test_the_limit_is_named_and_raised_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 250)
    message = r'\(600 pixels\) exceeds limit of 500 pixels; .* set DWNET_MAX_PIXELS in the environment'
    with pytest.raises(ValueError, match=message):
        read(tmp_path / 'a.png', FILES['colours.png'][0])
    with pytest.raises(ValueError, match=message):
        read(tmp_path / 'a.tif', FILES['bands.tif'][0], color_type='unchanged')
    with pytest.raises(ValueError, match=message):
        check_whole(FILES['colours.png'][0])
    monkeypatch.setenv('DWNET_MAX_PIXELS', '600')
    importlib.reload(dwnet.data)  # as in a new process
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read(tmp_path / 'a.png', FILES['colours.png'][0]).shape == (20, 30, 3)
    for nonsense in ('much', '0', '-3', '1e9'):
        monkeypatch.setenv('DWNET_MAX_PIXELS', nonsense)
        with pytest.raises(UserError, match=f'DWNET_MAX_PIXELS={nonsense} in the environment: the largest number of'):
            importlib.reload(dwnet.data)
