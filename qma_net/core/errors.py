"""Base class of every error that the user can correct."""


class QMANetError(ValueError):
    """An invalid input: one line states what was given, what was expected and what to do.

    The command line prints the message and exits with status 1, as it does for an OSError that
    concerns a path. Any unexpected exception is a bug and is shown with its traceback.
    """


def first_line(error: Exception, length: int = 200) -> str:
    """Return the start of an exception's message, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:length] if lines else type(error).__name__
