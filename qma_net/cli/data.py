"""``data check``, ``prepare``, ``protocol``, ``synth``: datasets."""

import argparse
import sys

from ..core.errors import QMANetError
from .flags import Commands, add_command, split_names


def add_commands(commands: Commands) -> None:
    """Add this group's commands to the parser of ``qma-net``."""
    text = "check, prepare and create datasets"
    data = commands.add_parser("data", help=text, description=f"{text.capitalize()}.")
    data_commands = data.add_subparsers(required=True, metavar="command")
    workers = "processes (default: one per CPU core)"

    add = add_command(data_commands, "check", _check).add_argument
    add("paths", nargs="+", help="folders with Tp/ and Gt/, lists, protocols, or test sets (JSON)")
    add("--json", action="store_true", help="print the report as JSON")
    add("--fast", action="store_true", help="check only headers and file sizes")
    add("--fix", metavar="DIR", help="write a copy with all lossless repairs")
    add("--pad-to", type=int, default=0, metavar="N", help="image size, if training pads images")
    add("--allow", default="", help="comma-separated names of problems that are acceptable")
    add("--workers", type=int, help=workers)

    add = add_command(data_commands, "prepare", _prepare).add_argument
    add("name", nargs="?", help="name of the dataset (default: list the known datasets)")
    add("--list", action="store_true", help="list the known datasets")
    add("--source", metavar="DIR", help="the unpacked archive, which is not modified")
    add("--out", metavar="DIR", help="folder for Tp/ and Gt/")
    reduce = "reduce larger images to this side; changes the results of test sets"
    add("--max-side", type=int, default=0, metavar="N", help=reduce)
    add("--authentic", action="store_true", help="also write authentic images, and a list of all")
    add("--repair", action="store_true", help="resize masks whose size differs from their image's")
    add("--link", action="store_true", help="use hard links instead of copies")
    add("--jpeg-quality", type=int, choices=(100, 90, 75), help="version of AutoSplice")
    add("--workers", type=int, help=workers)

    add = add_command(data_commands, "protocol", _protocol).add_argument
    add("name", choices=("cat", "mvss"), help="name of the protocol")
    add("--root", required=True, help="folder of the prepared datasets")
    add("--out", metavar="DIR", help="folder to write to (default: --root)")

    add = add_command(data_commands, "synth", _synth).add_argument
    add("--photos", required=True, metavar="DIR", help="authentic photos")
    add("--out", required=True, metavar="DIR", help="folder for train/ and test/")
    add("--labels", metavar="DIR", help="label maps (PNG files with the names of the photos)")
    add("--count", type=int, default=1000, help="number of training images (default: 1000)")
    add("--test-count", type=int, help="number of test images (default: a tenth of --count)")
    add("--image-size", type=int, help="longest side in pixels (default: 384, or the stage's)")
    add(
        "--stage",
        default="",
        help="stage of benco_configs/curriculum.yaml; from easy to hard: one-trace, histories, "
        "resampled, laundered, everything",
    )
    add("--seed", type=int, default=0, help="random seed (default: 0)")
    add("--workers", type=int, help=workers)


def _check(args: argparse.Namespace) -> None:
    """Check a dataset before training or testing."""
    import json

    from ..data.check import NOT_SEEN_FAST, check
    from ..data.repair import repair

    allow = split_names(args.allow)
    if args.fix:
        for line in repair(args.paths, args.fix, workers=args.workers, allow=allow):
            print(line, file=sys.stderr)
    report = check(
        args.paths, fast=args.fast, workers=args.workers, crop_size=args.pad_to, allow=allow
    )
    print(json.dumps(report.as_dict(), indent=1) if args.json else report.text())
    if args.fast:
        print(NOT_SEEN_FAST, file=sys.stderr if args.json else sys.stdout)
    if report.errors:
        sys.exit(1)


def _prepare(args: argparse.Namespace) -> None:
    """Convert a published dataset to BenCo's layout."""
    from ..data.prepare import prepare
    from ..data.published import published_facts

    if args.list or not args.name:
        print(published_facts())
        return
    if not args.source or not args.out:
        raise QMANetError(f"data prepare {args.name} requires --source DIR and --out DIR")
    prepared = prepare(
        args.name,
        args.source,
        args.out,
        max_side=args.max_side,
        authentic=args.authentic,
        repair=args.repair,
        link=args.link,
        jpeg_quality=args.jpeg_quality,
        workers=args.workers,
    )
    print(prepared.text())
    if prepared.report["check"]["errors"]:
        sys.exit(1)


def _protocol(args: argparse.Namespace) -> None:
    """Write the training and test JSON files for BenCo."""
    from ..data.protocol import write_protocol

    written = write_protocol(args.name, args.root, args.out)
    print(written.text())
    if written.missing:
        sys.exit(1)


def _synth(args: argparse.Namespace) -> None:
    """Create a synthetic dataset from authentic photos."""
    from ..synth.curriculum import stage
    from ..synth.synthesise import synthesise

    out = synthesise(
        args.photos,
        args.out,
        count=args.count,
        test_count=args.test_count,
        image_size=args.image_size,
        recipe=stage(args.stage) if args.stage else None,
        seed=args.seed,
        labels=args.labels,
        workers=args.workers,
    )
    print(f"{out}: train.json, test.json, manifest.jsonl")
