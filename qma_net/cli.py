"""The ``qma-net`` command: parse, call, print."""

import argparse
import sys

from . import __version__


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``qma-net`` and ``python -m qma_net``."""
    argv = sys.argv[1:] if argv is None else argv
    from .launch import SCRIPTS
    from .launch import main as launch

    if argv and argv[0] in SCRIPTS:  # BenCo parses these itself
        launch(argv)
        return
    args = _parser(SCRIPTS).parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"qma-net: {error}")


def _parser(scripts) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qma-net",
        description="QMA-Net: find the manipulated pixels of a photograph.",
        epilog=f"IMDL-BenCo's own scripts, with --model QMANet: qma-net {{{','.join(scripts)}}} "
        "[their flags] [--cudnn]",
    )
    parser.add_argument("--version", action="version", version=f"qma-net {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    weights = commands.add_parser("weights", help="which weights, where published; check a file")
    weights.add_argument("files", nargs="*", help="weights to check")
    weights.set_defaults(run=_weights)

    data = commands.add_parser("data", help="make datasets")
    data_commands = data.add_subparsers(required=True, metavar="command")
    synth = data_commands.add_parser("synth", help="manipulated photographs out of your own")
    synth.add_argument("--photos", required=True, help="folder of photographs")
    synth.add_argument("--out", required=True, help="folder for train/ and test/")
    synth.add_argument("--count", type=int, default=600, help="training images (default 600)")
    synth.add_argument("--test-count", type=int, default=90, help="test images (default 90)")
    synth.add_argument("--image-size", type=int, default=128, help="side in pixels (default 128)")
    synth.add_argument("--seed", type=int, default=0)
    synth.set_defaults(run=_synth)
    return parser


def _weights(args) -> None:
    from .weights import PUBLISHED, describe

    for file in args.files:
        print(describe(file))
    if args.files:
        return
    for item in PUBLISHED:
        print(f"{item.name}: {item.purpose}\n  published: {item.source}\n  terms: {item.terms}")
        if item.sha256:
            print(f"  SHA-256: {item.sha256}")


def _synth(args) -> None:
    from .data.synth import synthesise

    synthesise(args.photos, args.out, args.count, args.test_count, args.image_size, args.seed)


if __name__ == "__main__":
    main()
