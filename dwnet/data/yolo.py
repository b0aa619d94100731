"""YOLO: a label file for each image, ``labels/1.txt`` for ``images/1.jpg`` or beside it.

``yolo_settings`` reads data.yaml, and ``yolo_lines`` the lines of label files.
"""
import posixpath
from collections.abc import Iterable
from pathlib import Path

from dwnet.errors import UserError, some

from .files import IMAGES, Files, part_in, part_of, read_text
from .table import Entry, Table, leave_out, with_numbers, without_missing
from .yolo_lines import is_label_file, read_label_files
from .yolo_settings import Settings, read_settings

NAME = 'yolo'
NEEDS = 'label files of YOLO (a .txt for each image), and the names of the classes in data.yaml or classes.txt'
_FOLDERS_OF_IMAGES = ('images', 'jpegimages', 'imgs', 'img')


def read(files: Files, out: Path) -> Table | None:
    """The images of ``files`` with their label files; None if there are none, and no settings name parts."""
    texts = {_key(posixpath.dirname(name), name): name for name in files.ending('.txt')}
    label_files = {image: text for image in files.images if (text := _label_file(image, texts))}
    labelled = any(is_label_file(files, text) for text in label_files.values())
    settings = read_settings(files)
    if not labelled and not settings.parts:
        return None
    notes: list[str] = []
    images = _images(files, settings, label_files, notes)
    trained = images.get('train') or images.get('all') or []
    if trained and not any(image in label_files for image in trained):
        raise UserError(f'no image to train with has a label file: that of {files.path(trained[0])} is to lie beside '
                        'it, or in a folder labels beside images')
    _report_strays(files, texts.values(), set(label_files.values()), notes)
    parts = read_label_files(files, images, label_files, settings.names, notes)
    table = with_numbers(f"YOLO ({settings.file or 'label files'})", parts, notes, settings.names.values())
    if not settings.named:
        notes.append('the classes have numbers and no names: write the names into data.yaml or classes.txt')
    elif unused := [name for name in settings.names.values() if name not in table.classes]:
        notes.append(f'{len(unused)} classes without an object are left out: {some(unused)}')
    return table


# --- Label files -----------------------------------------------------------------------------------------


def _key(folder: str, name: str) -> str:
    return f'{folder.lower()}/{posixpath.splitext(posixpath.basename(name))[0]}'


def _label_file(image: str, texts: dict[str, str]) -> str | None:
    steps = posixpath.dirname(image).split('/')
    places = ['/'.join(steps), '/'.join(['labels', *steps]).rstrip('/')]
    for i, step in enumerate(steps):
        if step.lower() in _FOLDERS_OF_IMAGES:
            places.insert(0, '/'.join([*steps[:i], 'labels', *steps[i + 1:]]))
    return next((texts[key] for place in places if (key := _key(place, image)) in texts), None)


def _report_strays(files: Files, texts: Iterable[str], used: set[str], notes: list[str]) -> None:
    """Leaves label files out that belong to no image."""
    folders = {posixpath.dirname(text) for text in used}
    strays = [text for text in texts if text not in used and is_label_file(files, text)
              and (posixpath.dirname(text) in folders or 'labels' in text.lower().split('/'))]
    leave_out({'without an image': strays}, len(used) + len(strays), f'label files below {files.root}', notes)


# --- Parts -----------------------------------------------------------------------------------------------


def _images(files: Files, settings: Settings, label_files: dict[str, str], notes: list[str]) -> dict[str, list[str]]:
    """Part → the images that the settings name, or lists such as train.txt; else the folders tell the parts."""
    named = settings.parts or _lists(files)
    parts: dict[str, list[str]] = {}
    for part, places in named.items():
        where = f'{part} of {files.path(settings.file)}'
        for written in places:
            images = _images_of(files, written, settings.near, part, notes)
            if images:
                parts[part] = [*parts.get(part, []), *images]
            elif part == 'train':
                raise UserError(f'{where} is {written}, where no images are: --data-root is the folder that holds them')
            else:
                notes.append(f'{where} is {written}, where no images are: it is left out')
    folders = {posixpath.dirname(image) for image in label_files}
    if not named:
        for image in files.images:
            if (folder := posixpath.dirname(image)) in folders:
                parts.setdefault(part_in(folder) or 'all', []).append(image)
    pictures = {posixpath.splitext(image)[0] for image in files.images if not image.lower().endswith('.npy')}
    copies = {image for image in files.images if image.lower().endswith('.npy') and image[:-4] in pictures}
    if copies:
        parts = {part: [image for image in images if image not in copies] for part, images in parts.items()}
        notes.append(f'{len(copies)} arrays (.npy) are copies of images, as Ultralytics writes them, and are left out')
    taken = copies | {image for images in parts.values() for image in images}
    if left := [image for image in label_files if image not in taken]:
        notes.append(f'{len(left)} images with label files belong to no part and are left out: {some(left)}')
    return parts


def _lists(files: Files) -> dict[str, list[str]]:
    """Part → the text files that are called like it and begin with the name of an image."""
    lists: dict[str, list[str]] = {}
    for name in files.ending('.txt'):
        if part := part_of(posixpath.basename(name)[:-4]):
            first = read_text(files.path(name)).strip().partition('\n')[0]
            if first.strip().lower().endswith(IMAGES):
                lists.setdefault(part, []).append(name)
    return lists


def _images_of(files: Files, written: str, near: list[str], part: str, notes: list[str]) -> list[str]:
    """The images of a folder, of a list of images, or a single image."""
    place = files.place(written, *near)
    if place is None or place in files and place.lower().endswith(IMAGES):
        return [place] if place else []
    if place not in files:
        return files.images_below(place)
    lines = [Entry(line.strip()) for line in read_text(files.path(place)).splitlines() if line.strip()]

    def find(entry: Entry) -> str | None:
        return files.locate(entry.image, posixpath.dirname(place), part)

    return [entry.image for entry in without_missing(lines, find, str(files.path(place)), notes)]
