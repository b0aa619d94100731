"""Decodes images with the channels and bits of their file: PNG, TIFF, NumPy arrays, and what Pillow opens.

mmcv decodes to 8-bit colour. Here five bands of 16 bits stay five bands of 16 bits. tifffile reads TIFF files, since
Pillow refuses most of those with other channels than grey and colour.
"""
import contextlib
import io
import logging
import threading
from collections.abc import Iterator
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageOps

from .limits import check_size

_ARRAY, _PNG, _TIFF = b'\x93NUMPY', b'\x89PNG\r\n\x1a\n', (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# PNG's colour types → channels; a palette has colours
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Pillow's modes of more than 8 bits → the type of their values
_DEEP_MODES = {'I;16': 'uint16', 'I;16L': 'uint16', 'I;16B': 'uint16', 'I': 'int32', 'F': 'float32'}
_OF_COLOURS = 3, 4, 5, 6  # TIFF's photometric interpretations: a palette, a mask, CMYK, YCbCr


class Kind(NamedTuple):
    """What the pixels of a file are.

    Attributes:
        channels: Number of channels, transparency included.
        dtype: NumPy's name of the values' type, such as ``'uint16'``.
        see_through: Whether the last channel is called transparency.
    """
    channels: int
    dtype: str
    see_through: bool = False

    def __str__(self) -> str:
        return f"{self.channels} channel{'s' if self.channels > 1 else ''} of {self.dtype}"


def kind_of(path: Path) -> Kind:
    """The kind of a file's pixels, from its header.

    Raises:
        Exception: Any kind, if the file is damaged or no image.
    """
    with open(path, 'rb') as file:
        head = file.read(32)
        file.seek(0)
        if head.startswith(_ARRAY):
            array = np.load(path, mmap_mode='r', allow_pickle=False)
            return Kind(array.shape[_channel_axis(array.shape)] if array.ndim > 2 else 1, str(array.dtype))
        if head.startswith(_TIFF):
            return _kind_of_tiff(file)
        if head.startswith(_PNG):
            depth, colours = head[24], head[25]
            return Kind(_PNG_CHANNELS[colours], 'uint16' if depth == 16 else 'uint8', colours in (4, 6))
        with Image.open(file) as image:
            channels = 3 if image.mode in ('P', 'CMYK') else len(image.getbands())
            return Kind(channels, _DEEP_MODES.get(image.mode, 'uint8'), image.mode in ('LA', 'RGBA', 'PA'))


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of an array or a TIFF, from the header; None for files of other forms.

    Raises:
        Exception: Any kind, if the file is damaged or no image.
    """
    with open(path, 'rb') as file:
        head = file.read(32)
        file.seek(0)
        if head.startswith(_ARRAY):
            shape = np.load(path, mmap_mode='r', allow_pickle=False).shape
            axis = _channel_axis(shape) if len(shape) > 2 else None
        elif head.startswith(_TIFF):
            with tifffile.TiffFile(file) as tiff:
                image = _first_image(tiff)
                shape, axis = image.shape, _axis_of(image)
        else:
            return None
    height, width = (length for i, length in enumerate(shape) if i != axis)
    return width, height


def decode(content: bytes) -> np.ndarray:
    """The pixels of an encoded image, (H, W, C), with its own type; colours are red, green, blue.

    Palettes and CMYK become RGB. Of an animation the first frame counts.

    Raises:
        Exception: Any kind, if the content is damaged or no image; the message says what is wrong.
    """
    if is_array(content):
        pixels = np.load(io.BytesIO(content), allow_pickle=False)
        if pixels.ndim not in (2, 3) or pixels.dtype.kind not in 'buif':
            raise ValueError(f'it is an array of {pixels.dtype} of the shape {pixels.shape}, and (H, W) or (H, W, C) '
                             'of numbers is needed')
        return pixels[..., None] if pixels.ndim == 2 else np.moveaxis(pixels, _channel_axis(pixels.shape), -1)
    if content.startswith(_TIFF):
        return _decode_tiff(content)
    if content.startswith(_PNG) and content[25] != 3:  # Pillow halves the bits of colours of 16 bits
        pixels = _decode_by_opencv(content)
        return pixels[..., [0, 3]] if content[25] == 4 else pixels  # OpenCV makes colours of grey with transparency
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        if image.mode not in ('L', 'LA', 'RGB', 'RGBA', *_DEEP_MODES):
            image = image.convert('RGB')
        pixels = np.asarray(ImageOps.exif_transpose(image))
        return pixels[..., None] if pixels.ndim == 2 else pixels


def is_array(content: bytes) -> bool:
    """Whether the content is that of a .npy file."""
    return content.startswith(_ARRAY)


def is_foreign_tiff(content: bytes) -> bool:
    """Whether the content is a TIFF that Pillow does not open, as one of five bands."""
    if not content.startswith(_TIFF):
        return False
    try:
        Image.open(io.BytesIO(content)).close()
        return False
    except Image.UnidentifiedImageError:
        return True


# --- TIFF ----------------------------------------------------------------------------------------------


def _kind_of_tiff(file: BinaryIO) -> Kind:
    with tifffile.TiffFile(file) as tiff:
        page, image = tiff.pages[0], _first_image(tiff)
        if page.photometric in _OF_COLOURS:
            return Kind(3, 'uint8')
        axis = _axis_of(image)
        return Kind(1 if axis is None else image.shape[axis], str(image.dtype), page.extrasamples in ((1, ), (2, )))


def _decode_tiff(content: bytes) -> np.ndarray:
    try:
        with _damage_raises(), tifffile.TiffFile(io.BytesIO(content)) as tiff:
            if tiff.pages[0].photometric in _OF_COLOURS:
                return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
            image = _first_image(tiff)
            axis = _axis_of(image)
            check_size(*(length for i, length in enumerate(image.shape) if i != axis))
            pixels = np.asarray(image.asarray())
            return pixels[..., None] if axis is None else np.moveaxis(pixels, axis, -1)
    except (ValueError, KeyError) as error:
        if 'imagecodecs' not in str(error):
            raise
        if _kind_of_tiff(io.BytesIO(content)).channels > 4:
            raise ValueError('tifffile cannot unpack its compression: pip install imagecodecs') from error
        return _decode_by_opencv(content)  # which knows more compressions, of four channels at most


@contextlib.contextmanager
def _damage_raises() -> Iterator[None]:
    """Raises what tifffile only logs, such as the loss of a file's last pages."""
    log, kept, thread = logging.getLogger('tifffile'), BufferingHandler(capacity=100), threading.get_ident()
    kept.setLevel(logging.ERROR)
    kept.addFilter(lambda record: record.thread == thread)  # others may read other files
    log.addHandler(kept)
    try:
        yield
        if kept.buffer:
            raise ValueError(kept.buffer[0].getMessage())
    finally:
        log.removeHandler(kept)


def _first_image(tiff: tifffile.TiffFile) -> Any:
    """The first image of a file, whose bands may be pages, or the first page, if the pages are images."""
    series = tiff.series[0]
    return series if len(series.shape) <= 3 else tiff.pages[0]


def _axis_of(image: Any) -> int | None:
    """The axis of a TIFF's channels; None if there is none."""
    if len(image.shape) == 2:
        return None
    named = [image.axes.index(name) for name in 'SC' if name in image.axes]  # samples of a pixel, or channels
    return named[0] if named else _channel_axis(image.shape)


def _channel_axis(shape: tuple[int, ...]) -> int:
    """The axis of the channels: the shorter one of the first and the last."""
    return 0 if shape[0] < shape[-1] else len(shape) - 1


def _decode_by_opencv(content: bytes) -> np.ndarray:
    """(H, W, C); OpenCV's blue, green, red, and maybe transparency, become red, green, blue."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError('OpenCV cannot decode it')
    if pixels.ndim == 2:
        return pixels[..., None]
    channels = pixels.shape[-1]
    return pixels[..., [2, 1, 0, *range(3, channels)]] if channels >= 3 else pixels
