"""``serve``: the local web page."""

import argparse

from ..weights.names import NONE, SMALL
from .flags import Commands, add_checkpoint, add_command, add_device


def add_commands(commands: Commands) -> None:
    """Add this group's commands to the parser of ``qma-net``."""
    serve = add_command(
        commands,
        "serve",
        "start a web page on this machine that examines photos",
        allow_abbrev=False,
        epilog="With --model, all other flags are passed to that model.",
    )
    add_checkpoint(serve, without_model="show everything except the mask")
    add = serve.add_argument
    add("--port", type=int, default=7860, help="port; 0 selects a free one (default: 7860)")
    add("--host", default="127.0.0.1", help="address (default: 127.0.0.1, this machine only)")
    add("--model", default="", help="name of another model in BenCo's registry")
    add_device(serve)
    add(
        "--examples", default="", metavar="DIR", help="authentic photos to create the examples from"
    )
    serve.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> None:
    from ..web.serve import serve

    # The package's own model is only the default for QMA-Net itself.
    without_checkpoint = (NONE, SMALL) if args.model else (NONE,)
    serve(
        "" if args.checkpoint in without_checkpoint else args.checkpoint,
        host=args.host,
        port=args.port,
        model=args.model,
        model_flags=args.model_flags,
        device=args.device,
        examples=args.examples,
    )
