"""The files below a data root, listed once, and found by the names that annotations give them."""
import hashlib
import os
import posixpath
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.progress import track

from dwnet.errors import UserError, some

IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm', '.gif', '.npy')
_UNREAD_IMAGES = ('.heic', '.heif', '.avif', '.svg', '.psd', '.dng', '.cr2', '.nef')
_FOLDERS_OF_TOOLS = {'__MACOSX', '@eaDir', '$RECYCLE.BIN', '__pycache__'}
_PARTS = dict(train=('train', 'training'), val=('val', 'valid', 'validation'), test=('test', 'testing'))
T = TypeVar('T')


def part_of(name: str) -> str | None:
    """``'validation'`` → ``'val'``; None if a file or folder of this name is no part of a data set."""
    return next((part for part, names in _PARTS.items() if name.lower() in names), None)


def words_of(name: str) -> list[str]:
    """``annotations/instances_train2017.json`` → annotations, instances, train, json."""
    return ''.join(c if c.isalpha() else ' ' for c in name).split()


def part_in(path: str) -> str | None:
    """The part that a word of a path names; the innermost folder counts: ``training_data/val/1.jpg`` is of val."""
    words = (word for step in reversed(path.split('/')) for word in words_of(step))
    return next(filter(None, map(part_of, words)), None)


def most_left_out(total: int) -> int:
    """How many broken ones of ``total`` images or annotations are left out; more are an error."""
    return max(10, total // 100)


def with_progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar and the time left on a terminal; ``total`` is the number of items without a length."""
    total = len(items) if isinstance(items, Sized) else total
    yield from track(items, what, total=total, console=Console(stderr=True), transient=True,
                     disable=not sys.stderr.isatty())


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8, or in UTF-16, as PowerShell writes it."""
    content = path.read_bytes()
    if content[:2] in (b'\xff\xfe', b'\xfe\xff'):
        return content.decode('utf-16', 'replace')
    return content.decode('utf-8-sig', 'surrogateescape')


class Files:
    """All files below a data root, by their names relative to it, such as ``'train/cat/1.jpg'``.

    Links to folders are followed. Hidden files and folders (such as ``.ipynb_checkpoints``), and the folders that some
    systems leave behind, are no data.

    Args:
        root: The data root.
        without: A folder that is no data, such as the work dir of an earlier training.

    Attributes:
        root: The data root.
        names: The names of all files, in order.
        images: The names of the files that end like images, in order.
        notes: What the user should know about the files.
        elsewhere: How many files :meth:`locate` has found in another place than the annotations say.
    """

    def __init__(self, root: Path, without: Path | None = None) -> None:
        self.root, self._without = root, without
        self.notes: list[str] = []
        self.elsewhere = 0
        self._folders: list[str] = []
        self._stats = dict(sorted(self._walk(root, '', ())))
        self._folders.sort()
        self.names = list(self._stats)
        self.images = [name for name in self.names if name.lower().endswith(IMAGES)]
        self._of_name: dict[str, list[str]] = defaultdict(list)
        self._of_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._of_name[posixpath.basename(name).casefold()].append(name)
        for name in self.images:
            self._of_stem[posixpath.splitext(posixpath.basename(name))[0].casefold()].append(name)
        endings = Counter(posixpath.splitext(name)[1].lower() for name in self.names)
        if unread := [f'{endings[ending]} files {ending}' for ending in _UNREAD_IMAGES if endings[ending]]:
            self.notes.append(f'{some(unread)} are left out, since they cannot be read: convert them')

    def _walk(self, folder: Path, prefix: str, above: tuple) -> Iterator[tuple[str, tuple[int, int]]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            state = folder.stat()
        except OSError as error:
            raise UserError(f'{folder} cannot be read ({error.strerror}); make it readable, or move it away') from error
        if (state.st_dev, state.st_ino) in above:
            self.notes.append(f'{folder} leads back to a folder above it and is not followed')
            return
        for entry in entries:
            if entry.name.startswith('.') or entry.name in _FOLDERS_OF_TOOLS:
                continue
            if entry.is_dir():
                if Path(entry.path) != self._without:
                    self._folders.append(f'{prefix}{entry.name}')
                    yield from self._walk(Path(entry.path), f'{prefix}{entry.name}/',
                                          (*above, (state.st_dev, state.st_ino)))
            elif entry.is_file():
                stat = entry.stat()
                yield f'{prefix}{entry.name}', (stat.st_size, stat.st_mtime_ns)
            elif entry.is_symlink():
                self.notes.append(f'{entry.path} is a link to a file that is missing, and is left out')

    def path(self, name: str) -> Path:
        return self.root / name

    def size(self, name: str) -> int:
        """The bytes of a file."""
        return self._stats[name][0]

    def mention(self, name: str, *words: bytes) -> bool:
        """Whether the first or the last MB of a file has one of the words."""
        with self.path(name).open('rb') as file:
            head = file.read(2**20)
            file.seek(max(0, self.size(name) - 2**20))
            tail = file.read()
        return any(word in head or word in tail for word in words)

    def fingerprint(self) -> str:
        """A checksum of all names, sizes and times of change."""
        digest = hashlib.sha256()
        for name, (size, changed) in self._stats.items():
            digest.update(f'{name}\0{size}\0{changed}\0'.encode('utf-8', 'surrogateescape'))
        return digest.hexdigest()

    def __contains__(self, name: str) -> bool:
        return name in self._stats

    def folders(self, folder: str = '') -> list[str]:
        """The names, without ``folder``, of the folders directly below ``folder``."""
        start = f'{folder}/' if folder else ''
        inner = [name[len(start):] for name in _below(self._folders, folder)]
        return [name for name in inner if '/' not in name]

    def place(self, written: str, *near: str) -> str | None:
        """The file or folder that a setting means.

        A path of another machine, or one that leads out of the root, stands for the longest end of it that is there:
        ``'../train/images'`` → ``'train/images'``. An end that has lost the name of the part is none.

        Args:
            written: The path, absolute or not, with slashes of any kind.
            near: The folders to which the path may be relative, beside the root.
        """
        plain = written.strip().replace('\\', '/').removeprefix(f'{self.root.as_posix()}/')
        tail = [folder for folder in plain.split('/') if folder not in ('', '.', '..')]
        ends = ['/'.join(tail[start:]) for start in range(len(tail))]
        for end in [plain, *(end for end in ends if part_in(end) == part_in(plain))]:
            for folder in (*near, ''):
                place = posixpath.normpath(posixpath.join(folder, end))
                if place in self._stats or place in self._folders or place == '.':
                    return '' if place == '.' else place
        return None

    def images_below(self, folder: str) -> list[str]:
        return _below(self.images, folder)

    def others_below(self, folder: str) -> str:
        """What a folder without images has in their place, as the end of a message."""
        start = f'{folder}/' if folder else ''
        others = Counter(posixpath.splitext(name)[1].lower() or 'without an ending' for name in self.names
                         if name.startswith(start)).most_common(3)
        there = f", but {some(f'{count} files {ending}' for ending, count in others)}" if others else ''
        return f'{there}; images end in {some(IMAGES, 20)}, convert others'

    def ending(self, *endings: str) -> list[str]:
        """The names that end so, in upper or lower case."""
        return [name for name in self.names if name.lower().endswith(endings)]

    def locate(self, written: str, near: str = '', part: str | None = None) -> str | None:
        """The image that an annotation means, wherever it lies below the root.

        It is looked for at the written place, then by its name and as many of its folders as fit: annotations are moved
        away from their images, and hold the paths of other machines.

        Args:
            written: The path in the annotation, absolute or not, with slashes of any kind.
            near: The folder to which the path may be relative.
            part: The part of the data; of several images with the name, that in a folder of this part counts.

        Returns:
            The image's name; None if there is none.

        Raises:
            UserError: If several images have the name.
        """
        plain = unquote(urlsplit(written).path) if '://' in written else written
        plain = plain.replace('\\', '/')
        if plain.startswith(f'{self.root.as_posix()}/'):
            plain = plain[len(self.root.as_posix()) + 1:]
        for place in (posixpath.normpath(posixpath.join(near, plain)), posixpath.normpath(plain)):
            if place in self._stats:
                return place
        tail = [folder for folder in plain.casefold().split('/') if folder not in ('', '.', '..')]
        if not tail:
            return None
        stems = tail[-1], posixpath.splitext(tail[-1])[0]  # an id such as 1.2.840 has dots and no ending
        found = self._of_name.get(tail[-1]) or next(filter(None, map(self._of_stem.get, stems)), [])
        # an image of another part is another, where the annotation itself lies in its part
        if part and part_in(posixpath.join(near, posixpath.dirname(plain))) == part:
            found = [name for name in found if part_in(posixpath.dirname(name)) in (part, None)]
        if len(found) > 1:
            fits = {name: _common(tail[:-1], name.casefold().split('/')[:-1]) for name in found}
            found = [name for name in found if fits[name] == max(fits.values())]
        if len(found) > 1:
            of_part = [name for name in found if part in map(part_of, words_of(posixpath.dirname(name)))]
            found = of_part if part and of_part else found
        if len(found) > 1:
            raise UserError(f'several images below {self.root} are called {posixpath.basename(plain)} '
                            f'({some(found)}), and the annotations say only {written}: write the folder there, too, or '
                            'give the images names of their own')
        self.elsewhere += len(found)
        return found[0] if found else None


def _below(names: list[str], folder: str) -> list[str]:
    """Those of sorted names that lie below a folder, without a look at all: each of thousands of classes asks."""
    if not folder:
        return names
    return names[bisect_left(names, f'{folder}/'):bisect_left(names, f'{folder}0')]  # 0 follows / in Unicode


def _common(first: list[str], second: list[str]) -> int:
    """How many folders at the end of two paths are equal."""
    pairs = zip(reversed(first), reversed(second))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
