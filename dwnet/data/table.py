"""What every form of data becomes: a table of images with labels, objects or label images, in parts."""
import contextlib
import hashlib
import posixpath
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from dwnet.errors import UserError, some

from .files import Files, most_left_out

_SHARE = 5  # one image of five validates


class Entry(NamedTuple):
    """An image of a table.

    Attributes:
        image: Its name below the data root.
        label: Classification: the number of its class, or those of its classes.
        size: Detection: (width, height) in pixels, as the annotation has them.
        objects: Detection: COCO's annotations without ids; ``label`` is the number of the class, ``bbox`` (x, y, width,
            height) in pixels, ``segmentation`` polygons or RLE; ``bbox`` or ``segmentation`` suffices.
        mask: Segmentation: the name of its label image below the data root, or the path of one that was written.
            Panoptic: the name of its image of segments, with which ``objects`` are COCO's ``segments_info``.
    """
    image: str
    label: int | tuple[int, ...] | None = None
    size: tuple[int, int] | None = None
    objects: Sequence[dict] = ()
    mask: str | None = None


@dataclass
class Table:
    """The content of a data set, whatever its form.

    Attributes:
        form: What was recognised, such as ``'YOLO (data.yaml)'``.
        classes: The names of the classes; label i is the i-th.
        parts: ``'train'``, ``'val'``, ``'test'`` → entries; or ``'all'`` → entries, if the data are not split.
        notes: What the user should know, such as what was left out.
        things: Panoptic: how many of the classes, the first, are things; the others are stuff.
    """
    form: str
    classes: list[str]
    parts: dict[str, list[Entry]]
    notes: list[str] = field(default_factory=list)
    things: int = 0


class Form(Protocol):
    """A form of data: a module of this room, or an object with the same names."""
    NAME: str
    NEEDS: str

    def read(self, files: Files, out: Path) -> Table | None:
        """The content of ``files``; None if they are of another form. What has to be written goes into ``out``."""


def with_numbers(form: str, parts: dict[str, list[Entry]], notes: list[str], order: Iterable[str] = ()) -> Table:
    """A table of entries whose objects have the names of their classes as labels.

    Args:
        form: What was recognised.
        parts: Part → entries.
        notes: What the user should know.
        order: Names of classes in their order; further classes follow by name. Classes without objects are left out.
    """
    used = {each['label'] for entries in parts.values() for entry in entries for each in entry.objects}
    listed = [name for name in dict.fromkeys(order) if name in used]
    classes = [*listed, *sorted(used.difference(listed))]
    number = {name: label for label, name in enumerate(classes)}
    return Table(form, classes, {
        part: [entry._replace(objects=[{**each, 'label': number[each['label']]} for each in entry.objects])
               for entry in entries] for part, entries in parts.items()}, notes)


def settled(table: Table, files: Files) -> Table:
    """A table with ``'train'`` and ``'val'``, in which each part has an image once; its notes tell what was done.

    Raises:
        UserError: If there is nothing to train with, or an image has two truths.
    """
    notes = [*table.notes]
    parts = {part: once(entries, part, files, notes) for part, entries in table.parts.items() if entries}
    for part in [part for part, entries in parts.items() if not any(map(has_truth, entries))]:
        notes.append(f'{len(parts.pop(part))} images of {part} have no labels: {part} is left out')
    if 'all' in parts:
        if len(parts) > 1:
            raise UserError(f"{files.root} has the parts {some(part for part in parts if part != 'all')}, and "
                            f"{len(parts['all'])} images in none of them, such as {parts['all'][0].image}: move these "
                            'into a part')
        parts = _split(parts['all'], files)
    elif 'train' not in parts:
        raise UserError(f'{files.root} has nothing to train with' + (
            f': only {some(parts)}; call a part train' if parts else ': no image has a label'))
    elif 'val' not in parts and 'test' in parts:
        parts['val'] = parts.pop('test')
        notes.append('there is no val: test validates. The best checkpoint is chosen on it, so its score is too good')
    elif 'val' not in parts:
        parts.update(_split(parts['train'], files))
        notes.append('there is no val: a fifth of train is held back to validate')
    order = [part for part in ('train', 'val', 'test') if part in parts]
    return replace(table, parts={part: parts[part] for part in order}, notes=notes)


def joined(tables: list[Table], folders: list[str]) -> Table:
    """One table of several; classes of equal names are one class.

    Args:
        tables: Tables of :func:`settled`.
        folders: The folder of each, which is put before the names of its images.
    """
    classes = list(dict.fromkeys(name for table in tables for name in table.classes))
    parts: dict[str, list[Entry]] = {}
    for table, folder in zip(tables, folders):
        label = [classes.index(name) for name in table.classes]
        has_masks = any(entry.mask for entries in table.parts.values() for entry in entries)
        if has_masks and label != list(range(len(label))):  # numbers in a user's label images stay
            raise UserError(f'the label images of {folder} have the classes {some(table.classes)}, and all data roots '
                            f'together {some(classes)}: number the classes of all data roots alike')
        for part, entries in table.parts.items():
            parts.setdefault(part, []).extend(_moved(entry, folder, label) for entry in entries)
    return Table('; '.join(dict.fromkeys(table.form for table in tables)), classes, parts,
                 [note for table in tables for note in table.notes])


def _moved(entry: Entry, folder: str, label: list[int]) -> Entry:
    of_image = entry.label
    if of_image is not None:
        of_image = label[of_image] if isinstance(of_image, int) else tuple(label[each] for each in of_image)
    mask = entry.mask and posixpath.join(folder, entry.mask)
    objects = [{**each, 'label': label[each['label']]} for each in entry.objects]
    return entry._replace(image=posixpath.join(folder, entry.image), label=of_image, mask=mask, objects=objects)


def has_truth(entry: Entry) -> bool:
    return entry.label not in (None, ()) or bool(entry.objects) or entry.mask is not None


def once(entries: Iterable[Entry], part: str, files: Files, notes: list[str]) -> list[Entry]:
    """Joins the entries of an image that a part names twice."""
    entries, kept = list(entries), {}
    for entry in entries:
        first = kept.get(entry.image)
        if first is None:
            kept[entry.image] = entry
        elif (first.objects or entry.objects) and first.mask == entry.mask:
            more = [each for each in entry.objects if each not in first.objects]
            kept[entry.image] = first._replace(objects=[*first.objects, *more])
        elif (first.label, first.mask) != (entry.label, entry.mask):
            raise UserError(f'{files.path(entry.image)} is named twice in {part}, with different labels: remove one of '
                            'the two')
    if joined := len(entries) - len(kept):
        notes.append(f'{joined} images of {part} are named twice, and their labels are joined')
    return list(kept.values())


def _split(entries: list[Entry], files: Files) -> dict[str, list[Entry]]:
    """Holds a fifth back: of the images of each class, or of those with objects and of those without."""
    strata: dict[int | str, list[str]] = defaultdict(list)
    counts = Counter(label for entry in entries if isinstance(entry.label, tuple) for label in entry.label)
    for entry in entries:
        strata[_stratum(entry, counts)].append(entry.image)
    if all(len(names) < 2 for stratum, names in strata.items() if stratum != 'nothing' or len(strata) == 1):
        raise UserError(f'{files.root} has too few images: one to train with and one to validate with is needed (of '
                        'each class)')
    held_back = {name for names in strata.values() if len(names) > 1 for name in _held_out(names)}
    return dict(train=[entry for entry in entries if entry.image not in held_back],
                val=[entry for entry in entries if entry.image in held_back])


def _stratum(entry: Entry, counts: Counter) -> int | str:
    """The class of an image, of several labels the rarest; or whether it has objects."""
    if isinstance(entry.label, int):
        return entry.label
    if entry.label:
        return min(entry.label, key=lambda label: (counts[label], label))
    return 'objects' if entry.objects else 'nothing'


def _held_out(names: Sequence[str]) -> set[str]:
    """The held-out fifth: the lowest checksums of names without folders, the same wherever the images lie."""
    checksum = {name: zlib.crc32(posixpath.basename(name).encode('utf-8', 'surrogateescape')) for name in names}
    ordered = sorted(names, key=lambda name: (checksum[name], name))
    return set(ordered[:max(1, len(names) // _SHARE)])


def leaks(parts: dict[str, list[Entry]], root: Path) -> list[str]:
    """Tells of images that are in two parts, under any name; those of equal size are compared by content."""
    where: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))  # bytes → name → parts
    for part, entries in parts.items():
        for entry in entries:
            with contextlib.suppress(OSError):  # the check of the images reports it
                where[(root / entry.image).stat().st_size][entry.image].add(part)
    shared = defaultdict(set)  # checksum → (part, name)
    for names in where.values():
        if len(set().union(*names.values())) > 1:
            for name, its in names.items():
                with contextlib.suppress(OSError):
                    content = hashlib.sha256((root / name).read_bytes()).digest()
                    shared[content].update((part, name) for part in its)
    notes = []
    for first, second in (('train', 'val'), ('train', 'test'), ('val', 'test')):
        both = [sorted(found) for found in shared.values() if {first, second} <= {part for part, _ in found}]
        if both:
            examples = some((' = '.join(dict.fromkeys(name for _, name in found)) for found in both), 2)
            notes.append(f'{len(both)} images are in {first} and in {second}, byte by byte ({examples}): the score of '
                         f'{second} is too good')
    return notes


def without_missing(entries: Iterable[Entry], found: Callable[[Entry], str | None], where: str,
                    notes: list[str]) -> list[Entry]:
    """The entries with the names of their images below the root; a few whose image is missing are left out, and named.

    Raises:
        UserError: If more than ten and more than 1 % of the images are missing, or all.
    """
    kept, missing = [], []
    for entry in entries:
        name = found(entry)
        if name is None:
            missing.append(entry.image)
        else:
            kept.append(entry._replace(image=name))
    total = len(kept) + len(missing)
    if missing and (len(missing) > most_left_out(total) or not kept):
        raise UserError(f'{where} names {len(missing)} of {total} images that are not below the data root: '
                        f'{some(missing)}; put them there, or mend the names')
    if missing:
        notes.append(f'{len(missing)} of {total} images that {where} names are missing and are left out: '
                     f'{some(missing)}')
    return kept


def leave_out(faults: Mapping[str, Sequence[str]], total: int, what: str, notes: list[str]) -> None:
    """Notes which of ``total`` annotations are broken and left out.

    Args:
        faults: What is wrong → where.
        total: Whole ones and broken ones.
        what: What they are, such as ``'lines of label files'``.
        notes: The table's notes.

    Raises:
        UserError: If more than ten and more than 1 % are broken, or all.
    """
    broken = sum(map(len, faults.values()))
    listed = '; '.join(f'{len(places)} {fault}: {some(places)}' for fault, places in faults.items() if places)
    if broken and (broken > most_left_out(total) or broken == total):
        raise UserError(f'{broken} of {total} {what} are broken ({listed}); mend or remove them')
    if broken:
        notes.append(f'{broken} of {total} {what} are broken and are left out ({listed})')


def note_unlabelled(files: Files, parts: Mapping[str, Sequence[Entry]], where: str, notes: list[str]) -> None:
    """Notes which images below the root are in no part."""
    labelled = {entry.image for entries in parts.values() for entry in entries}
    if unlabelled := [image for image in files.images if image not in labelled]:
        notes.append(f'{len(unlabelled)} images have no {where} and are left out: {some(unlabelled)}')
