"""Looks at files: whether they are there and whole, and whether some can be decoded.

A whole look at every file would take as long as an epoch. So large files are judged by their header and their end,
which are what an interrupted copy or download damages. Files that were found whole are remembered by path, size and
time of change.
"""
import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from .files import with_progress
from .loading import check_whole

MISSING, EMPTY, UNREADABLE = 'missing', 'empty', 'not readable by you'
_PART = 2**16  # bytes of a large file's header, and of its end
_JPEG, _PNG, _PNG_END = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'\0\0\0\0IEND\xaeB`\x82'
# Files are looked at in blocks, each by one thread. On a local disk one thread would do (1 s for 10,000 small images),
# and two forked processes are no faster; others take 17 s to start. On a network disk the threads wait side by side.
_THREADS, _BLOCK = 8, 64
_FORM = 1  # of the fingerprints

Reader = Callable[[str], object]  # reads a file as the training does; raises any error


class Examiner:
    """Examines files, and remembers those that are whole.

    Args:
        memory: The file of what is remembered; written by :meth:`save`.
    """

    def __init__(self, memory: Path) -> None:
        self.memory = memory
        self._known: set[int] = set()
        self._whole: list[int] = []
        with contextlib.suppress(OSError, ValueError, EOFError):  # missing, or damaged
            self._known = set(np.load(memory, allow_pickle=False).tolist())

    def faults(self, files: Sequence[str], what: str, read: Reader | None,
               sample: Iterable[str] = ()) -> dict[str, str]:
        """What is wrong with files: :data:`MISSING`, :data:`EMPTY`, :data:`UNREADABLE`, or the reader's words.

        Args:
            files: Paths.
            what: What the files are, beside the progress bar.
            read: Reads an image; None for files of unknown form, of which only places and sizes are looked at.
            sample: Those of the files that are decoded.
        """
        sample = set(sample)
        found: dict[str, str] = {}

        def look(block: Sequence[str]) -> list[tuple[int, str]]:
            return [self._look(file, read, file in sample) for file in block]

        blocks = [files[i:i + _BLOCK] for i in range(0, len(files), _BLOCK)]
        pool = ThreadPoolExecutor(_THREADS)
        try:
            results = with_progress(pool.map(look, blocks), f'looking at {what}', len(blocks))
            for result, block in zip(results, blocks):
                for file, (fingerprint, fault) in zip(block, result):
                    if fault:
                        found[file] = fault
                    else:
                        self._whole.append(fingerprint)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C
        return found

    def save(self) -> None:
        """Writes the memory; a disk that is full or read-only costs only the memory."""
        unfinished = self.memory.with_suffix('.unfinished')
        with contextlib.suppress(OSError):
            with open(unfinished, 'wb') as file:
                np.save(file, np.array(sorted(set(self._whole)), np.uint64))
            unfinished.replace(self.memory)

    def _look(self, file: str, read: Reader | None, decode: bool) -> tuple[int, str]:
        """The fingerprint of a file, and what is wrong with it."""
        try:
            state = os.stat(file)
        except (FileNotFoundError, NotADirectoryError):
            return 0, MISSING
        except (OSError, ValueError) as error:
            return 0, str(error)
        if not stat.S_ISREG(state.st_mode):  # some devices have no end
            return 0, 'it is no file'
        if not state.st_size:
            return 0, EMPTY
        of_what = f'{_FORM} {read is None} {decode} {state.st_size} {state.st_mtime_ns} {file}'
        digest = blake2b(of_what.encode(errors='surrogateescape'), digest_size=8).digest()
        fingerprint = int.from_bytes(digest, 'big')
        if fingerprint in self._known:
            return fingerprint, ''
        if not os.access(file, os.R_OK):
            return 0, UNREADABLE
        try:
            if read is not None:
                _check(file, state.st_size, read, decode)
        except Exception as error:  # the file system, Pillow and OpenCV raise many kinds
            return 0, ' '.join(str(error.__cause__ or error).split()) or type(error).__name__
        return fingerprint, ''


def _check(file: str, size: int, read: Reader, decode: bool) -> None:
    """Checks the structure of a JPEG or PNG; decodes files of other forms, and those of the sample."""
    with open(file, 'rb') as stream:
        head = stream.read(_PART)
        known = head.startswith((_JPEG, _PNG))
        if known and not (size > 2 * _PART and _seems_whole(head, stream)):
            stream.seek(len(head))
            check_whole(head + stream.read())
    if decode or not known:
        read(file)


def _seems_whole(head: bytes, stream: io.BufferedReader) -> bool:
    """Whether header and end of a large file are in order; if not, the whole file has to be looked at."""
    stream.seek(-_PART, os.SEEK_END)
    end = stream.read()
    try:
        if head.startswith(_JPEG):
            check_whole(head + end)
        else:
            Image.open(io.BytesIO(head)).close()
    except Exception:  # Pillow raises many kinds
        return False
    return head.startswith(_JPEG) or end.endswith(_PNG_END)
