"""Images with label images, in folders of many kinds, or side by side."""
from collections.abc import Mapping
from pathlib import Path

from dwnet.errors import UserError, some

from .files import Files, with_progress
from .label_images import read_labels
from .pairs import pairs_of, parts_of
from .sizes import read_sizes
from .table import Entry, Table, leave_out

NAME = 'masks'
NEEDS = 'images with a label image each, such as images/1.jpg and masks/1.png, or 1.jpg and 1_mask.png'


def read(files: Files, out: Path) -> Table | None:
    """The images of ``files`` with their label images; None if there are none of this form."""
    mask_of, images, lonely = pairs_of(files)
    if not images or not mask_of and not lonely:
        return None
    if not mask_of:
        raise UserError(f'{files.root} has images and label images, and no two have the same name ({images[0]}, '
                        f'{lonely[0]}): name each label image like its image')
    notes: list[str] = []
    if jpegs := [mask for mask in mask_of.values() if mask.lower().endswith(('.jpg', '.jpeg'))]:
        raise UserError(f'the label images of {files.root} are JPEG ({some(jpegs, 2)}), which changes labels: write '
                        'them as PNG')
    _check_sizes(files, mask_of)
    classes, written, broken = read_labels(files, mask_of.values(), out, notes)
    masks = {image: written[mask] for image, mask in mask_of.items() if mask in written}
    parts = {part: [Entry(image, mask=masks.get(image)) for image in its]
             for part, its in parts_of(files, images, notes).items()}
    unlabelled = {part for part, entries in parts.items() if part != 'all' and not any(each.mask for each in entries)}
    without = [image for part, entries in parts.items() if part not in unlabelled
               for image, *_ in entries if image not in mask_of]
    leave_out({'without a label image': without}, len(images), f'images below {files.root}', notes)
    leave_out({'that cannot be read': broken, 'without an image': lonely}, len(mask_of) + len(lonely),
              f'label images below {files.root}', notes)
    return Table('images and label images', classes, {
        part: entries if part in unlabelled else [entry for entry in entries if entry.mask is not None]
        for part, entries in parts.items()}, notes)


def _check_sizes(files: Files, mask_of: Mapping[str, str]) -> None:
    for image, mask in with_progress(mask_of.items(), 'comparing sizes'):
        size, own = read_sizes(files.path(image)), read_sizes(files.path(mask))
        if size and own and size.upright != own.upright:
            raise UserError(f"{files.path(mask)} has {' × '.join(map(str, own.upright))} pixels and "
                            f"{files.path(image)} has {' × '.join(map(str, size.upright))}: a label image needs the "
                            'size of its image, as a viewer shows it; scale the label image (by nearest neighbour), or '
                            'export it again')
