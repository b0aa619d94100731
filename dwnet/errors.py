"""The error that is shown to a person, and what its line is made of."""
import difflib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class UserError(Exception):
    """A mistake that the user can mend: one line with what was wrong, where, and what to do.

    Args:
        message: The line. It stays one, of a few thousand characters at most, whatever it quotes from a file.
        parts: Further lines, where several things are wrong.
    """

    def __init__(self, message: str, *parts: str) -> None:
        # one that was raised in a data worker PyTorch makes anew, from a report that ends with the message
        message = message.rpartition(f'{__name__}.UserError: ')[2]
        super().__init__('\n- '.join(map(_one_line, (message, *parts))))


@contextmanager
def requires(package: str, extra: str, purpose: str) -> Iterator[None]:
    """Around the import of an optional package: a missing one ends with the command that installs it.

    Args:
        package: Its name on PyPI.
        extra: The extra of this project that brings the package.
        purpose: What needs it, as the message begins.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"{purpose} needs {package}, which is missing: pip install 'dwnet[{extra}]'") from error


def one_line(error: BaseException) -> str:
    """Its kind and its message."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())


def some(items: Iterable[Any], most: int = 5) -> str:
    """The first of them in a line."""
    items = list(items)
    return ', '.join(map(str, items[:most])) + (', …' if len(items) > most else '')


def not_among(argument: str, value: object, choices: Collection[str]) -> str:
    """The message for an argument that is none of its choices, with the nearest of them."""
    near = difflib.get_close_matches(str(value), choices, n=1)
    return (f"{argument} must be one of {', '.join(map(repr, choices))}, got {value!r}"
            + (f'; did you mean {near[0]!r}?' if near else ''))


def _one_line(text: str) -> str:
    line = ' '.join(''.join(c if c.isprintable() else ' ' for c in text[:4000]).split())
    return line + ' …' * (len(text) > 4000)
