"""The error that is shown to a person."""


class UserError(Exception):
    """A mistake that the user can mend: one line with what was wrong, where, and what to do."""
