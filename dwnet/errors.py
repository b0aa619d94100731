"""The error that is shown to a person."""


class UserError(Exception):
    """A mistake that the user can mend: one line with what was wrong, where, and what to do.

    Args:
        message: The line. It stays one, of a few thousand characters at most, whatever it quotes from a file.
        parts: Further lines, where several things are wrong.
    """

    def __init__(self, message: str, *parts: str) -> None:
        super().__init__('\n- '.join(map(_one_line, (message, *parts))))


def _one_line(text: str) -> str:
    line = ' '.join(''.join(c if c.isprintable() else ' ' for c in text[:4000]).split())
    return line + ' …' * (len(text) > 4000)
