"""A table of data as the toolboxes read it: lists of labels, COCO files, and pairs of images and label images.

The files lie in a folder of the work dir. A later training reads them again, unless the data have changed.
"""
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dwnet.errors import UserError, some

from .coco_file import OWN, repaired
from .files import Files, with_progress
from .pixels import Pixels, pixels_of
from .table import Entry, Form, Table, joined, leaks, settled

_VERSION = 2  # of the files that are written here
_IGNORED = 255  # the label of pixels without a class


@dataclass
class OwnData:
    """A user's data as the toolboxes read them.

    Attributes:
        root: The data root, to which names of files are relative.
        classes: The names of the classes; label i is the i-th.
        sizes: Images of 'train' and 'val', and of 'test' if there is such a part.
        parts: 'train', 'val' and 'test' → ``ann_file``. Classification: lines of an image's name and its label, or,
            for several labels an image, mmengine's JSON of ``img_path`` and ``gt_label``. Detection: a COCO file.
            Segmentation: a JSON list of pairs, an image and its label image. Panoptic: a COCO file, with the folders of
            the images, ``images``, and of their segments, ``segments``.
        form: What was recognised, such as ``'YOLO (data.yaml)'``.
        notes: What the user should know, such as what was left out.
        with_masks: Detection: whether each object has a mask.
        several_labels: Classification: whether an image may have several labels.
        pixels: What the pixels of the training images are, unless they are 8-bit colour.
        things: Panoptic: how many of the classes, the first, are things; the others are stuff.
    """
    root: Path
    classes: list[str]
    sizes: dict[str, int]
    parts: dict[str, dict[str, str]]
    form: str = ''
    notes: list[str] = field(default_factory=list)
    with_masks: bool = False
    several_labels: bool = False
    pixels: Pixels | None = None
    things: int = 0


def read_own_data(roots: Sequence[Path], task: str, forms: Iterable[Form], out: Path) -> OwnData:
    """The data below ``roots``, each in the first of ``forms`` that is there; data of several roots are joined.

    Args:
        roots: The data roots.
        task: ``'classification'``, ``'detection'``, ``'segmentation'`` or ``'panoptic'``.
        forms: The forms that the data may have.
        out: The folder for what is written.

    Raises:
        UserError: If no form is there, or the data are not whole.
    """
    forms, files = list(forms), [Files(root, _own_folder(root, out)) for root in roots]
    places = [(str(each.root), each.fingerprint()) for each in files]  # a moved folder has its old fingerprint
    state = f'{_VERSION} {task} {[form.NAME for form in forms]} {places}'
    record = out / 'data.json'
    if (known := _known(record, state)) is not None:
        return known
    outs = [out / str(i) for i in range(len(roots))] if len(roots) > 1 else [out]  # their images may have equal names
    if task == 'panoptic' and len(roots) > 1:
        raise UserError('panoptic data are read from one data root: put the images and PNGs of all into its folders')
    tables = [_read(each, task, forms, where) for each, where in zip(files, outs)]
    root = Path(os.path.commonpath(roots))
    together = list(dict.fromkeys(name for table in tables for name in table.classes))
    tables = [_numbered_alike(table, together) for table in tables]
    table = joined(tables, [each.relative_to(root).as_posix() for each in roots]) if len(roots) > 1 else tables[0]
    table.notes += leaks(table.parts, root)
    images = {part: [root / entry.image for entry in entries] for part, entries in table.parts.items()}
    pixels = pixels_of(images['train'], [image for part in images if part != 'train' for image in images[part]])
    data = OwnData(root, table.classes, {part: len(names) for part, names in images.items()}, {}, table.form,
                   table.notes, pixels=pixels)
    dict(classification=_write_labels, detection=_write_coco, segmentation=_write_pairs,
         panoptic=_write_panoptic)[task](table, data, out)
    write_whole(record, json.dumps(dict(state=state, data={**asdict(data), 'root': str(root)})))
    return data


def _own_folder(root: Path, out: Path) -> Path | None:
    """The folder directly below ``root`` that holds ``out``, as the work dir may lie among the data."""
    return root / out.relative_to(root).parts[0] if root in out.parents else None


def _read(files: Files, task: str, forms: list[Form], out: Path) -> Table:
    table = next((table for form in forms if (table := form.read(files, out)) is not None), None)
    if table is None:
        needed = ', or '.join(form.NEEDS for form in forms)
        packed = files.ending('.zip', '.tar', '.gz', '.tgz', '.7z', '.rar')
        raise UserError(f'{files.root} has no data for {task}, which needs {needed}'
                        + (f'; unpack {some(packed)}' if packed else ''))
    table = settled(table, files)
    if files.elsewhere:
        table.notes.append(f'{files.elsewhere} images were found by their names, in other folders than the annotations '
                           'say')
    table.notes[:0] = files.notes
    return table


def _numbered_alike(table: Table, classes: list[str]) -> Table:
    """The table with the numbers of ``classes`` in its label images, if these were all written here."""
    masks = {entry.mask for entries in table.parts.values() for entry in entries if entry.mask}
    label = [classes.index(name) for name in table.classes]
    if label == list(range(len(label))) or not masks or not all(map(os.path.isabs, masks)):
        return table
    if len(classes) > _IGNORED:
        raise UserError(f'all data roots together have {len(classes)} classes, and label images hold {_IGNORED} at '
                        'most: join some')
    of_value = np.array([*label, *[_IGNORED] * (256 - len(label))], np.uint8)
    for mask in with_progress(masks, 'numbering classes alike'):
        content = io.BytesIO()
        Image.fromarray(of_value[np.asarray(Image.open(mask))]).save(content, 'PNG')
        write_whole(Path(f'{mask}.joined.png'), content.getvalue())  # another process may read the first file
    return replace(table, classes=classes, parts={
        part: [entry._replace(mask=entry.mask and f'{entry.mask}.joined.png') for entry in entries]
        for part, entries in table.parts.items()})


def _known(record: Path, state: str) -> OwnData | None:
    """What an earlier call has written, if the data are as they were then."""
    try:
        content = json.loads(record.read_text(encoding='utf-8'))
        data = OwnData(**content['data'])
        data.root, data.pixels = Path(data.root), data.pixels and Pixels(*data.pixels)
        there = all(Path(part['ann_file']).is_file() for part in data.parts.values())
        return data if content['state'] == state and there else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_whole(path: Path, content: str | bytes) -> str:
    """Writes a file at once: several processes may write the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    unfinished.write_bytes(content.encode('utf-8', 'surrogateescape') if isinstance(content, str) else content)
    os.replace(unfinished, path)
    return str(path)


def _write_labels(table: Table, data: OwnData, out: Path) -> None:
    data.several_labels = any(isinstance(entry.label, tuple) for entries in table.parts.values() for entry in entries)
    for part, entries in table.parts.items():
        if data.several_labels:
            listed = [dict(img_path=entry.image, gt_label=[label] if isinstance(label, int) else list(label))
                      for entry in entries if (label := entry.label) is not None]
            content = json.dumps(dict(metainfo=dict(classes=table.classes), data_list=listed))
        else:
            if odd := [entry.image for entry in entries if not _stays_in_a_line(entry.image)]:
                raise UserError(f'{len(odd)} images below {data.root} have names that no list can hold, with a line '
                                f'break, a space in front, or bytes that are no UTF-8: rename {some(odd)}')
            content = ''.join(f'{entry.image} {entry.label}\n' for entry in entries)
        name = f"{part}.{'json' if data.several_labels else 'txt'}"
        data.parts[part] = dict(ann_file=write_whole(out / name, content))


def _stays_in_a_line(name: str) -> bool:
    """Whether mmpretrain reads a name from a line as it was written."""
    return name.splitlines() == [name.lstrip()] and name == name.encode(errors='ignore').decode()


def _write_coco(table: Table, data: OwnData, out: Path) -> None:
    having = {}
    for part, entries in table.parts.items():
        content = repaired(_as_coco(table.classes, entries), f'{part} of {data.root}')
        data.parts[part] = dict(ann_file=write_whole(out / f'{part}.json', json.dumps(content)))
        data.sizes[part] = len(content['images'])
        having[part] = all(annotation.get('segmentation') for annotation in content['annotations'])
    if len(set(having.values())) > 1:
        with_masks, without = ([part for part in having if having[part] == has] for has in (True, False))
        raise UserError(f'the objects of {some(with_masks)} have masks and those of {some(without)} have none: draw '
                        'masks there, too, or leave out every mask to train with boxes')
    data.with_masks = having['train']


def _as_coco(classes: list[str], entries: list[Entry]) -> dict:
    images, annotations = [], []
    for number, entry in enumerate(entries):
        width, height = entry.size or (0, 0)
        images.append(dict(id=number, file_name=entry.image, width=width, height=height))
        annotations += [{**{key: value for key, value in each.items() if key != 'label'}, 'image_id': number,
                         'category_id': each['label'] + 1} for each in entry.objects]
    for number, annotation in enumerate(annotations, start=1):  # COCO's evaluation takes 0 for "no match"
        annotation['id'] = number
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, start=1)]
    return dict(**OWN, images=images, categories=categories, annotations=annotations)


def _write_pairs(table: Table, data: OwnData, out: Path) -> None:
    for part, entries in table.parts.items():
        pairs = [(entry.image, entry.mask) for entry in entries]
        data.parts[part] = dict(ann_file=write_whole(out / f'{part}.json', json.dumps(pairs)))


def _write_panoptic(table: Table, data: OwnData, out: Path) -> None:
    """mmdet finds the PNG of an image by the image's name, in one folder of a part; COCO has them so."""
    data.things, data.with_masks = table.things, True
    categories = [dict(id=number, name=name, isthing=int(number <= table.things))
                  for number, name in enumerate(table.classes, start=1)]
    for part, entries in table.parts.items():
        folders = [{str(Path(name).parent) for name in names}
                   for names in ([entry.image for entry in entries], [str(entry.mask) for entry in entries])]
        named = [entry.image for entry in entries
                 if Path(entry.image).name.replace('.jpg', '.png') != Path(str(entry.mask)).name]
        if named or any(len(its) > 1 for its in folders):
            raise UserError(
                f'the {part} data of {data.root} are not as COCO has them: ' +
                (f'{named[0]} is a JPEG or PNG whose PNG of segments has another name' if named else
                 f'they are in the folders {some(sorted(folders[0] | folders[1]))}') +
                '; put the images (.jpg or .png) of a part into one folder and their PNGs, of the same names, into '
                'another')
        images, annotations = [], []
        for number, entry in enumerate(entries):
            width, height = entry.size or (0, 0)
            images.append(dict(id=number, file_name=Path(entry.image).name, width=width, height=height))
            segments = [{**{key: value for key, value in each.items() if key != 'label'},
                         'category_id': each['label'] + 1} for each in entry.objects]
            annotations.append(dict(image_id=number, file_name=Path(str(entry.mask)).name, segments_info=segments))
        content = json.dumps(dict(images=images, annotations=annotations, categories=categories))
        data.parts[part] = dict(ann_file=write_whole(out / f'{part}.json', content), images=folders[0].pop(),
                                segments=folders[1].pop())
