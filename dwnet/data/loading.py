"""Reads images as mmcv does; a damaged image is an error that names the file."""
import io
import os
import struct
import zlib

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

from dwnet.registry import TRANSFORMS

from .decoding import Kind, decode, is_array, is_foreign_tiff
from .limits import with_remedy


@TRANSFORMS.register_module()
class LoadWholeImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, which raises an error for a damaged image.

    OpenCV decodes the start of a damaged file and leaves the rest grey, and returns None for a file that is no image;
    how much damage passes depends on OpenCV's version. Here a file has to be complete: a JPEG needs its end marker, a
    PNG the checksums of its parts, and Pillow has to decode any other format. A JPEG has no checksum, so a damaged
    JPEG that can still be decoded is not found.

    mmcv decodes whole images, by default to 8-bit BGR: grey and palette images get three channels, CMYK becomes BGR,
    16 bits become their upper 8, transparency is dropped, and the orientation in EXIF is applied. What mmcv cannot
    decode is read by :mod:`dwnet.data.decoding`, if it has 8 bits and is grey or coloured, as GIFs and .npy files.

    With ``color_type='unchanged'`` the channels and bits are those of the file, (H, W, C). Three channels are BGR, as
    in all toolboxes; any other number stays in the file's order. :func:`dwnet.data.pixels.pixels_of` finds which data
    need this.

    An image of more pixels than the limit of :mod:`dwnet.data.limits` is an error.
    """

    def transform(self, results: dict) -> dict:
        """Adds ``img``, ``img_shape`` and ``ori_shape`` to ``results``.

        Raises:
            ValueError: If the file at ``img_path`` is no whole image.
        """
        path = results['img_path']
        try:
            if os.path.exists(path) and not os.path.isfile(path):  # some devices have no end
                raise ValueError('it is no file')
            content = fileio.get(path, backend_args=self.backend_args)
            image = self._decode(content)
            height, width = image.shape[:2]
            stated = [results.get('height', height), results.get('width', width)]
            if stated not in ([height, width], [width, height]):  # EXIF may have turned the image
                raise ValueError(f'it has {width}×{height} pixels, and its annotation says {stated[1]}×{stated[0]}')
        except Exception as error:  # the file system, Pillow and OpenCV raise many kinds
            raise ValueError(f'{path} is no whole image: {error}') from error
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = height, width
        return results

    def _decode(self, content: bytes) -> np.ndarray:
        as_in_file = self.color_type == 'unchanged'
        if not is_array(content) and not is_foreign_tiff(content):
            check_whole(content)
            if not as_in_file:
                image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
                if image is not None:
                    return image
        pixels = decode(content)
        return _bgr(_finite(pixels)) if as_in_file else _eight_bits(pixels, self.color_type)


def _bgr(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels


def _finite(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == 'f' and not np.isfinite(pixels).all():
        raise ValueError(f'{np.count_nonzero(~np.isfinite(pixels))} of its {pixels.size} values are not finite')
    return pixels


def _eight_bits(pixels: np.ndarray, color_type: str) -> np.ndarray:
    """Grey or coloured pixels of 8 bits as mmcv returns them: BGR, or grey without an axis of channels."""
    channels = pixels.shape[-1]
    if pixels.dtype != np.uint8 or channels > 4:
        raise ValueError(f'it has {Kind(channels, str(pixels.dtype))}, and images of 8 bits, grey or coloured, are '
                         'expected')
    colours = pixels[..., 2::-1] if channels >= 3 else pixels[..., :1].repeat(3, axis=2)
    return mmcv.bgr2gray(colours) if color_type.startswith('grayscale') else np.ascontiguousarray(colours)


def check_whole(content: bytes) -> None:
    """Checks that an encoded image is complete.

    Raises:
        Exception: Any kind; the message says what is wrong.
    """
    if not content:
        raise ValueError('it is empty')
    try:
        image = Image.open(io.BytesIO(content))  # reads the header
    except UnidentifiedImageError as error:
        raise ValueError('its format is unknown') from error
    except Image.DecompressionBombError as error:
        raise ValueError(with_remedy(str(error))) from error
    with image:
        if image.format == 'JPEG':
            _check_jpeg(content)
        elif image.format == 'PNG':
            _check_png(content)
        else:
            image.load()


def _check_jpeg(content: bytes) -> None:
    place = 2
    while (marker := content[place:place + 2]) != b'\xff\xda':  # skip the header: a thumbnail has an end, too
        if len(content) < place + 4 or marker[0] != 0xff:
            raise ValueError('its header is damaged')
        place += 1 if marker[1] == 0xff else 2 + int.from_bytes(content[place + 2:place + 4], 'big')
    if content.find(b'\xff\xd9', place) < 0:
        raise ValueError('its end is missing')


def _check_png(content: bytes) -> None:
    place, kind = 8, b''
    while kind != b'IEND':
        if len(content) < place + 12:
            raise ValueError('its end is missing')
        length, kind = struct.unpack_from('>I4s', content, place)
        end = place + 8 + length
        if kind.isupper() and content[end:end + 4] != zlib.crc32(content[place + 4:end]).to_bytes(4, 'big'):
            raise ValueError(f'the checksum of its part {kind.decode()} is wrong')  # lower case: optional parts
        place = end + 4
