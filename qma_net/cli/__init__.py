"""The ``qma-net`` command.

It parses arguments, calls the library and prints the results. Each group of commands has its own
file.
"""

import argparse
import logging
import sys
import warnings

from .. import __version__
from ..core.errors import QMANetError
from ..core.threads import let_threads_sleep, limit_threads
from ..core.untrusted import one_line, printable_lines
from ..launch import SCRIPTS, benco_left_out
from ..launch import main as launch
from . import data, evaluation, model
from .flags import print_notes, reject_mistyped_flags, reject_unknown_flags

# The extra that installs each of the modules that only some commands need.
EXTRAS = {"IMDLBenCo": "benco", "albumentations": "benco", "matplotlib": "report"}
EXTRAS |= {"fastapi": "web", "python_multipart": "web", "uvicorn": "web"}


class _TerminalHandler(logging.Handler):
    """Prints messages as plain lines on stdout, and warnings and errors on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # BenCo replaces print, and tests replace the streams.
            if record.levelno < logging.WARNING:
                sys.stdout.write(f"{printable_lines(self.format(record))}\n")
                sys.stdout.flush()
            else:
                sys.stderr.write(f"qma-net: {one_line(self.format(record))}\n")
        except Exception:
            self.handleError(record)


def main(argv: list[str] | None = None) -> None:
    """Run ``qma-net`` with these arguments, or with those in ``sys.argv``.

    Errors that the user can correct are printed as one line; bugs are shown with their traceback.
    """
    let_threads_sleep()
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in SCRIPTS:  # BenCo parses the flags of its own scripts.
        launch(argv)
        return
    package_logger = logging.getLogger("qma_net")
    package_logger.handlers = [_TerminalHandler()]
    package_logger.setLevel(logging.INFO)
    # Pillow warns about damaged metadata; the results mention it instead.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    parser = _parser()
    reject_mistyped_flags(parser, argv)
    args, unknown = parser.parse_known_args(argv)
    reject_unknown_flags(args, unknown)
    args.model_flags = unknown
    try:
        limit_threads(getattr(args, "threads", None))
        args.run(args)
    except KeyboardInterrupt:
        print_notes("interrupted; finished work is kept. Run the same command to resume.")
        sys.exit(130)
    except (QMANetError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise  # It was raised by a library and does not concern a path.
        sys.exit(f"qma-net: {one_line(error)}")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if not extra:
            raise
        if extra == "benco" and (reason := benco_left_out()):
            sys.exit(f"qma-net: {reason}")
        sys.exit(f"qma-net: {error.name} is not installed; run: pip install 'qma-net[{extra}]'")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qma-net",
        description="Localize tampered regions in photos with QMA-Net, and train and evaluate it.",
        epilog="To train a model or to run IMDL-BenCo's own tests, use "
        f"qma-net {{{','.join(SCRIPTS)}}} --model QMANet [flags]; each of these commands has its "
        "own --help.",
    )
    parser.add_argument("--version", action="version", version=f"qma-net {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for group in (model, evaluation, data):
        group.add_commands(commands)
    return parser
