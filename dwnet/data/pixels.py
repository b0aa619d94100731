"""What kind of pixels a data set has: channels, bits, and the mean and standard deviation of each channel.

8-bit colour, also mixed with grey, is what all configs expect. Other images need another reader, another
normalisation and another first layer; ``dwnet/toolboxes/pixels.py`` sets them.
"""
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwnet.errors import UserError

from .decoding import Kind, decode, kind_of
from .files import with_progress

_LOOKED_AT = 300  # headers that tell whether a set is of 8-bit colour
_MEASURED = 200  # images whose mean and standard deviation are computed
_OPENED = 10  # images whose transparency is looked at
_SIDE = 256  # of an image about so many rows and columns are measured
_COLOUR, _GREY = (3, 'uint8'), (1, 'uint8')


class Pixels(NamedTuple):
    """The pixels of a data set that is not of 8-bit colour.

    Attributes:
        channels: Number of channels.
        dtype: NumPy's name of the values' type.
        mean: The mean of each channel, in the order of the file.
        std: The standard deviation of each channel.
    """
    channels: int
    dtype: str
    mean: list[float]
    std: list[float]

    @property
    def is_grey(self) -> bool:
        """Whether the images are 8-bit grey, which mmcv reads, too."""
        return (self.channels, self.dtype) == (1, 'uint8')


def pixels_of(files: Sequence[Path], others: Sequence[Path] = ()) -> Pixels | None:
    """The pixels of training images; None if they are 8-bit colour, or a mixture of 8-bit colour and grey.

    The headers of 300 images, evenly spread, tell whether the set is of 8-bit colour. If not, all headers are read, and
    mean and standard deviation are computed on 200 images.

    Transparency is no channel, unless most of its values are neither 0 nor 255, as those of an infrared band.

    Args:
        files: The training images.
        others: The images of the other parts, which have to be of the same kind.

    Raises:
        UserError: If two images are of different kinds, or no training image can be read.
    """
    if _are_colour(_kinds(_spread(files, _LOOKED_AT))):
        return None
    kinds = _kinds(files)
    if _are_colour(kinds):
        return None
    if not kinds:
        raise UserError(f'{files[0]} cannot be read, nor can any other of {len(files)} training images')
    seen = (lambda kind: kind) if _have_a_fourth_band(kinds) else _without_transparency
    first = next(iter(kinds))
    kind = seen(kinds[first])
    fitting = {_GREY, _COLOUR} if kind[:2] == _GREY else {kind[:2]}  # of grey and colour the reader makes grey
    for other, its in (kinds | _kinds(others)).items():
        if seen(its)[:2] not in fitting:
            raise UserError(f'{first} has {kind}, and {other} has {seen(its)}: the images of a data set have one '
                            'number of channels and one type; convert those of one kind, or leave them out')
    return Pixels(kind.channels, kind.dtype, *_mean_and_std(_spread(list(kinds), _MEASURED), kind.channels))


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the files, evenly spread."""
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, most).astype(int))]


# --- Kinds ---------------------------------------------------------------------------------------------


def _kinds(files: Sequence[Path]) -> dict[Path, Kind]:
    """The kind of each file; damaged files, which the training reports, are left out."""
    kinds = {}
    for file in with_progress(files, 'looking at the pixels of images'):
        with contextlib.suppress(Exception):  # a damaged file may raise anything
            kinds[file] = kind_of(file)
    return kinds


def _are_colour(kinds: dict[Path, Kind]) -> bool:
    seen = {_without_transparency(kind)[:2] for kind in kinds.values()}
    return _COLOUR in seen and seen <= {_COLOUR, _GREY} and not _have_a_fourth_band(kinds)


def _without_transparency(kind: Kind) -> Kind:
    """Of 8 bits, where readers drop the transparency."""
    return Kind(kind.channels - 1, kind.dtype) if kind.see_through and kind.dtype == 'uint8' else kind


def _have_a_fourth_band(kinds: dict[Path, Kind]) -> bool:
    """Whether what the files call transparency has more steps than transparent and opaque."""
    if not kinds or set(kinds.values()) != {Kind(4, 'uint8', see_through=True)}:
        return False
    bands = [pixels[..., 3] for pixels in _decoded(_spread(list(kinds), _OPENED))]
    return bool(bands) and all(np.isin(band, (0, 255)).mean() < .5 and band.min() < band.max() for band in bands)


# --- Values --------------------------------------------------------------------------------------------


def _decoded(files: Iterable[Path]) -> Iterator[np.ndarray]:
    """The pixels of each file that can be decoded."""
    for file in files:
        try:
            pixels = decode(file.read_bytes())
        except Exception:  # a damaged file may raise anything; the training names it
            continue
        yield pixels


def _mean_and_std(files: Sequence[Path], channels: int) -> tuple[list[float], list[float]]:
    """Of each channel, over rows and columns that are evenly spread."""
    number, total, squares = 0, np.zeros(channels), np.zeros(channels)
    for pixels in _decoded(with_progress(files, 'measuring mean and standard deviation')):
        height, width = pixels.shape[:2]
        few = pixels[::max(1, height // _SIDE), ::max(1, width // _SIDE), :channels].reshape(-1, channels)
        few = few[np.isfinite(few).all(axis=1)].astype(np.float64)
        number, total, squares = number + len(few), total + few.sum(0), squares + (few**2).sum(0)
    if not number:
        raise UserError(f'{files[0]} cannot be decoded, nor can any other of {len(files)} training images')
    mean = total / number
    std = np.sqrt(np.maximum(squares / number - mean**2, 0))
    std[std == 0] = 1  # a channel without information
    return _rounded(mean), _rounded(std)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f'{value:.6g}') for value in values]
