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


@TRANSFORMS.register_module()
class LoadWholeImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, which raises an error for a damaged image.

    OpenCV decodes the start of a damaged file and leaves the rest grey, and returns None for a file that is no image;
    how much damage passes depends on OpenCV's version. Here a file has to be complete: a JPEG needs its end marker, a
    PNG the checksums of its parts, and Pillow has to decode any other format. A JPEG has no checksum, so a damaged
    JPEG that can still be decoded is not found.

    mmcv decodes whole images, by default to 8-bit BGR: grey and palette images get three channels, CMYK becomes BGR,
    16 bits become their upper 8, transparency is dropped, and the orientation in EXIF is applied. An image of more than
    179 million pixels is an error, by Pillow's guard against small files that unpack to gigabytes.
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
            check_whole(content)
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
            if image is None:
                raise ValueError(f'{self.imdecode_backend} cannot decode it')
            height, width = image.shape[:2]
            stated = [results.get('height', height), results.get('width', width)]
            if stated not in ([height, width], [width, height]):  # EXIF may have turned the image
                raise ValueError(f'it has {width}×{height} pixels, and its annotation says {stated[1]}×{stated[0]}')
        except Exception as error:  # the file system, Pillow and OpenCV raise many kinds
            raise ValueError(f'{path} is no whole image: {error}') from error
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = height, width
        return results


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
