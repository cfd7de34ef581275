"""``data check``, ``prepare``, ``protocol``, ``synth``: datasets."""

import argparse
import sys

from ..core.errors import QMANetError
from .flags import listed


def add_commands(commands) -> None:
    """Adds this group's commands to the subparsers of ``qma-net``."""
    data = commands.add_parser("data", help="make datasets")
    data_commands = data.add_subparsers(required=True, metavar="command")
    check = data_commands.add_parser("check", help="is a dataset what BenCo takes it for?")
    check.add_argument("paths", nargs="+", help="Tp/Gt folders, lists, protocols, test sets")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument("--fast", action="store_true", help="headers and file sizes only")
    check.add_argument("--fix", metavar="DIR", help="write a copy with the lossless repairs")
    check.add_argument("--pad-to", type=int, default=0, help="--image_size, if training pads")
    check.add_argument("--allow", default="", help="problems that are right here, by comma")
    check.add_argument("--workers", type=int, help="processes (default: one per core)")
    check.set_defaults(run=_check)

    make = data_commands.add_parser("prepare", help="a published archive as BenCo reads it")
    make.add_argument("name", nargs="?", help="a dataset; without one, the table of facts")
    make.add_argument("--list", action="store_true", help="print the table of facts")
    make.add_argument("--source", metavar="DIR", help="the unpacked archive; only read")
    make.add_argument("--out", metavar="DIR", help="the dataset's own folder, for Tp/ and Gt/")
    make.add_argument(
        "--max-side", type=int, default=0, help="reduce larger images; test sets change"
    )
    make.add_argument("--authentic", action="store_true", help="also Au/ and a list with them")
    make.add_argument("--repair", action="store_true", help="make masks of wrong size fit")
    make.add_argument("--link", action="store_true", help="hard links in place of copies")
    make.add_argument("--jpeg-quality", type=int, choices=(100, 90, 75), help="of AutoSplice")
    make.add_argument("--workers", type=int, help="processes (default: one per core)")
    make.set_defaults(run=_prepare)

    protocol = data_commands.add_parser("protocol", help="training and test JSONs for BenCo")
    protocol.add_argument("name", choices=("cat", "mvss"))
    protocol.add_argument("--root", required=True, help="folder of prepared datasets")
    protocol.add_argument("--out", metavar="DIR", help="where to write (default: --root)")
    protocol.set_defaults(run=_protocol)

    synth = data_commands.add_parser("synth", help="manipulated photographs out of your own")
    synth.add_argument("--photos", required=True, help="folder of untouched photographs")
    synth.add_argument("--out", required=True, help="folder for train/ and test/")
    synth.add_argument("--labels", help="folder of label maps (PNG, named like the photographs)")
    synth.add_argument("--count", type=int, default=1000, help="training images (default 1000)")
    synth.add_argument("--test-count", type=int, help="test images (default a tenth of --count)")
    synth.add_argument("--image-size", type=int, help="longest side (default 384, or the stage's)")
    synth.add_argument(
        "--stage",
        default="",
        help="of benco_configs/curriculum.yaml, the easiest first: one-trace, "
        "histories, resampled, laundered, everything",
    )
    synth.add_argument("--seed", type=int, default=0)
    synth.add_argument("--workers", type=int, help="processes (default: one per core)")
    synth.set_defaults(run=_synth)


def _check(args: argparse.Namespace) -> None:
    import json

    from ..data.check import check
    from ..data.findings import NOT_SEEN_FAST
    from ..data.repair import repair

    allow = listed(args.allow)
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
    from ..data.prepare import prepare
    from ..data.published import published_facts

    if args.list or not args.name:
        print(published_facts())
        return
    if not args.source or not args.out:
        raise QMANetError(f"got data prepare {args.name}, expected also --source DIR and --out DIR")
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
    from ..data.protocol import write_protocol

    written = write_protocol(args.name, args.root, args.out)
    print(written.text())
    if written.missing:
        sys.exit(1)


def _synth(args: argparse.Namespace) -> None:
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
