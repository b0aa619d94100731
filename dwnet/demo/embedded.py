"""The embedded data sets, each made where a config first needs it."""
import os
from pathlib import Path

from . import digits, digits_clips, digits_pose, digits_rotated, digits_text

# Root → settings, beside those of data/digits
MORE: dict[Path, digits.EmbeddedData] = {
    digits_rotated.ROOT: digits_rotated.RotatedDigits(),
    digits_pose.ROOT: digits_pose.PoseDigits(),
    digits_clips.ROOT: digits_clips.DigitClips(),
    digits_text.ROOT: digits_text.DigitText(),
}


def prepare_if_missing(*paths: str | os.PathLike) -> Path:
    """Makes the data set in whose folder one of ``paths`` lies, if the folder does not exist.

    An existing folder is left alone, because it may be the user's.

    Returns:
        The root of this data set; ``data/digits`` if the paths are of none.
    """
    for root, settings in MORE.items():
        if digits.are_in(root, settings.folders, paths):
            if not root.exists():
                digits.prepare(root, settings)
            return root
    return digits.prepare_if_missing(*paths)
