"""The error that is shown to a person."""


class UserError(Exception):
    """A mistake that the user can mend: one line with what was wrong, where, and what to do.

    It stays one line, of a few thousand characters at most, whatever it quotes from a file.
    """

    def __init__(self, message: str) -> None:
        line = ' '.join(''.join(c if c.isprintable() else ' ' for c in message[:4000]).split())
        super().__init__(line + ' …' * (len(message) > 4000))
