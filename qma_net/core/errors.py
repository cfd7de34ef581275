"""Base class of every error that the user can correct."""


class QMANetError(ValueError):
    """An invalid input: one line states what was given, what was expected and what to do.

    The command line prints the message and exits with status 1. Any other exception is a bug
    and shows its traceback.
    """
