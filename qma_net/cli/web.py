"""``serve``: the page."""

import argparse

from ..weights.names import NONE, SMALL
from .flags import add_checkpoint


def add_commands(commands) -> None:
    """Adds this group's commands to the subparsers of ``qma-net``."""
    serve = commands.add_parser(
        "serve", help="a page on this machine that examines photographs", allow_abbrev=False
    )
    add_checkpoint(serve, without="all but the mask is shown")
    serve.add_argument("--port", type=int, default=7860, help="0 for any (default 7860)")
    serve.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine only")
    serve.add_argument("--model", default="", help="another model of BenCo's registry, by name")
    serve.add_argument("--device", default="", help="cpu or cuda (default: CUDA if any)")
    serve.add_argument(
        "--examples", default="", metavar="DIR", help="untouched photographs to make examples of"
    )
    serve.epilog = "With --model, all other flags are that model's own."
    serve.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> None:
    from ..web.serve import serve

    own = SMALL if args.model else NONE  # another model cannot have ours
    serve(
        "" if args.checkpoint in (own, NONE) else args.checkpoint,
        host=args.host,
        port=args.port,
        model=args.model,
        model_flags=args.model_flags,
        device=args.device,
        examples=args.examples,
        say=lambda line: print(line, flush=True),
    )
