"""The ``qma-net`` command: parse, call, print. Each group of commands has a file of its own."""

import argparse
import sys

from .. import __version__
from ..core.errors import QMANetError
from ..launch import SCRIPTS
from ..launch import main as launch
from . import data, evaluation, model, web
from .flags import unknown_flags

# Which extra brings a module that only some commands need.
EXTRAS = {
    "IMDLBenCo": "benco",
    "albumentations": "benco",
    "gradio": "web",
    "matplotlib": "report",
    "uvicorn": "web",
}


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``qma-net`` and ``python -m qma_net``.

    What an input is at fault for ends the process with one line; a bug shows its traceback.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in SCRIPTS:  # BenCo parses these itself
        launch(argv)
        return
    parser = _parser()
    args, args.model_flags = parser.parse_known_args(argv)
    if args.model_flags and not getattr(args, "model", ""):
        parser.error(unknown_flags(parser, argv, args.model_flags))
    try:
        args.run(args)
    except KeyboardInterrupt:
        print(
            "qma-net: stopped; what is finished is kept, the same command goes on", file=sys.stderr
        )
        sys.exit(130)
    except QMANetError as error:
        sys.exit(f"qma-net: {error}")
    except OSError as error:
        if error.errno is None:  # not the system's word on a path, but a library's on a content
            raise
        sys.exit(f"qma-net: {error}")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if not extra:
            raise
        sys.exit(
            f"qma-net: got no {error.name}, expected it installed: pip install 'qma-net[{extra}]'"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qma-net",
        description="QMA-Net: find the manipulated pixels of a photograph.",
        epilog=f"IMDL-BenCo's own scripts, with --model QMANet: qma-net {{{','.join(SCRIPTS)}}} "
        "[their flags] [--cudnn]",
    )
    parser.add_argument("--version", action="version", version=f"qma-net {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for group in (model, evaluation, data, web):
        group.add_commands(commands)
    return parser
