"""The size of an image and its orientation in EXIF, from its header."""
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .decoding import size_of

_ORIENTATION = 0x112  # the tag in EXIF; 5 to 8 turn the image by 90°


class Sizes(NamedTuple):
    """Width and height in pixels: as the file has them, and of the image that a viewer shows; EXIF's orientation."""
    unturned: tuple[int, int]
    upright: tuple[int, int]
    orientation: int


def read_sizes(path: Path) -> Sizes | None:
    """The sizes of an image; None if the header cannot be read."""
    try:
        if (size := size_of(path)) is not None:
            return Sizes(size, size, 1)
        with Image.open(path) as image:
            exif = Image.Exif()  # Image.getexif also reads XMP, which OpenCV does not follow
            exif.load(image.info.get('exif', b''))
            size, orientation = image.size, exif.get(_ORIENTATION, 1)
    except Exception:  # a damaged file may raise anything
        return None
    return Sizes(size, size[::-1] if orientation in (5, 6, 7, 8) else size, orientation)
