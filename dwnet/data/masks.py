"""Images with label images."""
from pathlib import Path

from .files import Files
from .table import Table

NAME = 'masks'
NEEDS = 'the folders images and masks (or labels, or annotations), with a label image for each image'


def read(files: Files, out: Path) -> Table | None:
    """The images of ``files`` with their label images; None if there are none of this form."""
    return None
