"""The largest image that is read, in pixels: Pillow's limit, or ``DWNET_MAX_PIXELS`` of the environment.

Pillow refuses images of more than 178,956,970 pixels and warns above half of that, because a file of some kilobytes
may unpack to gigabytes. Images of ``DWNET_MAX_PIXELS`` are read without a warning. Every process of a training, a test
or an inference inherits the environment.
"""
import os

from PIL import Image

from dwnet.errors import UserError

VARIABLE = 'DWNET_MAX_PIXELS'


def apply_limit() -> None:
    """Sets Pillow's limit to that of the environment, if the environment has one.

    Raises:
        UserError: If the variable is no whole number above 0.
    """
    value = os.environ.get(VARIABLE)
    if value is None:
        return
    if not value.isdecimal() or not int(value):
        raise UserError(f'{VARIABLE}={value} in the environment: the largest number of pixels, such as 500000000')
    Image.MAX_IMAGE_PIXELS = int(value)  # Pillow warns above this number, and refuses more than twice as many


def check_size(height: int, width: int) -> None:
    """Refuses an image as Pillow does, for files that Pillow does not read.

    Raises:
        ValueError: If the image has more pixels than the limit.
    """
    limit = 2 * (Image.MAX_IMAGE_PIXELS or float('inf'))
    if height * width > limit:
        raise ValueError(with_remedy(f'Image size ({height * width} pixels) exceeds limit of {limit} pixels'))


def with_remedy(error: str) -> str:
    """Pillow's message for an image that is too large, and what to do."""
    what = error.partition(',')[0]
    return f'{what}; if you trust the file, set {VARIABLE} in the environment to so many pixels, or to more'
