"""The error for a user's mistake, and helpers for messages of one line."""
import difflib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class UserError(Exception):
    """A mistake that the user can mend: one line with what was wrong, where, and what to do.

    Args:
        message: The line. Line breaks, as in quotes from a file, become spaces, and 4,000 characters are kept.
        parts: Further lines, where several things are wrong.
    """

    def __init__(self, message: str, *parts: str) -> None:
        # PyTorch re-raises a data worker's error with the traceback as the message; keep only the original message
        message = message.rpartition(f'{__name__}.UserError: ')[2]
        super().__init__('\n- '.join(map(_one_line, (message, *parts))))


@contextmanager
def requires(package: str, extra: str, purpose: str) -> Iterator[None]:
    """Wraps the import of an optional package; the error for a missing package has the command that installs it.

    Args:
        package: The package's name on PyPI.
        extra: The extra of this project that brings the package.
        purpose: What needs the package; the message begins with it.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"{purpose} needs {package}, which is missing: pip install 'dwnet[{extra}]'") from error


def one_line(error: BaseException) -> str:
    """The class and the message of an error in one line."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())


def some(items: Iterable[Any], most: int = 5) -> str:
    """The first ``most`` items in one line."""
    items = list(items)
    return ', '.join(map(str, items[:most])) + (', …' if len(items) > most else '')


def not_among(argument: str, value: object, choices: Collection[str]) -> str:
    """The message for an argument that is none of its choices, with the nearest choice."""
    near = difflib.get_close_matches(str(value), choices, n=1)
    return (f"{argument} must be one of {', '.join(map(repr, choices))}, got {value!r}"
            + (f'; did you mean {near[0]!r}?' if near else ''))


def _one_line(text: str) -> str:
    line = ' '.join(''.join(c if c.isprintable() else ' ' for c in text[:4000]).split())
    return line + ' …' * (len(text) > 4000)
