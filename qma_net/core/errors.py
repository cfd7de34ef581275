"""The one base of all errors that are somebody's input and not our fault."""


class QMANetError(ValueError):
    """One line that says what was got, what was expected and what to do.

    The command line prints it and ends; any other exception is a bug and shows its traceback.
    """
