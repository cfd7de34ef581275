"""The commands for datasets: ``data check``, ``prepare``, ``protocol`` and ``synth``."""

import argparse
import sys

from ..core.errors import QMANetError
from ..core.untrusted import one_line, printable_lines
from .flags import ALLOWED_EXAMPLE, Commands, add_command, print_lines, split_names


def add_commands(commands: Commands) -> None:
    """Add this group's commands to the parser of ``qma-net``."""
    text = "check, prepare and create datasets"
    data = commands.add_parser("data", help=text, description=f"{text.capitalize()}.")
    data_commands = data.add_subparsers(required=True, metavar="command")
    workers = "number of processes (default: one per CPU core)"

    paths = "folders with Tp/ (images) and Gt/ (masks), or JSON files (lists, protocols, test sets)"
    add = add_command(data_commands, "check", _check).add_argument
    add("paths", nargs="+", help=paths)
    add("--json", action="store_true", help="print the report as JSON")
    add("--fast", action="store_true", help="check only headers and file sizes")
    fix = "write a copy in which everything that can be repaired losslessly is repaired"
    add("--fix", metavar="DIR", help=fix)
    pad_to = (
        "size to which training pads images; larger images are reported, because training would "
        "crop them"
    )
    add("--pad-to", type=int, default=0, metavar="N", help=pad_to)
    allow = f"comma-separated names of problems to report as warnings only, {ALLOWED_EXAMPLE}"
    add("--allow", default="", metavar="A,B", help=allow)
    add("--workers", type=int, metavar="N", help=workers)

    add = add_command(data_commands, "prepare", _prepare).add_argument
    add("name", nargs="?", help="name of the dataset; omit it to list all")
    add("--list", action="store_true", help="list the known datasets")
    add("--source", metavar="DIR", help="folder with the unpacked archive, which is not modified")
    add("--out", metavar="DIR", help="folder for Tp/ and Gt/")
    max_side = (
        "downscale images whose longer side exceeds N pixels; this changes results on test sets"
    )
    add("--max-side", type=int, default=0, metavar="N", help=max_side)
    authentic = "also write the authentic images and a JSON list of all images"
    add("--authentic", action="store_true", help=authentic)
    repair = "rotate or resize masks that do not match their image's size"
    add("--repair", action="store_true", help=repair)
    add("--link", action="store_true", help="create hard links instead of copies where possible")
    partial = "exit with status 0 even if fewer than 95%% of the published images were found"
    add("--partial", action="store_true", help=partial)
    quality = "JPEG quality of the AutoSplice version to prepare (default: 100)"
    add("--jpeg-quality", type=int, choices=(100, 90, 75), help=quality)
    add("--workers", type=int, metavar="N", help=workers)

    add = add_command(data_commands, "protocol", _protocol).add_argument
    add("name", choices=("cat", "mvss"), help="training protocol: CAT-Net (cat) or MVSS-Net (mvss)")
    add("--root", required=True, metavar="DIR", help="folder containing the prepared datasets")
    add("--out", metavar="DIR", help="folder to write to (default: --root)")

    add = add_command(data_commands, "synth", _synth).add_argument
    add("--photos", required=True, metavar="DIR", help="folder of authentic photos")
    add("--out", required=True, metavar="DIR", help="folder for train/ and test/")
    labels = "folder of label maps: PNG files with the same names as the photos"
    add("--labels", metavar="DIR", help=labels)
    add(
        "--count",
        type=int,
        default=1000,
        metavar="N",
        help="number of training images (default: 1000)",
    )
    add(
        "--test-count",
        type=int,
        metavar="N",
        help="number of test images (default: a tenth of --count)",
    )
    image_size = "longer side in pixels (default: the size set by --stage, otherwise 384)"
    add("--image-size", type=int, metavar="N", help=image_size)
    add(
        "--stage",
        default="",
        help="recipe for the images, from easy to difficult: one-trace, histories, resampled, "
        "laundered or everything; two further recipes, 'realistic' and 'copies', require original "
        "photo files that were never recompressed (see benco_configs/curriculum.yaml)",
    )
    add("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    add("--workers", type=int, metavar="N", help=workers)


def _check(args: argparse.Namespace) -> None:
    """Check a dataset before training or testing."""
    from ..core.files import to_json
    from ..data.check import NOT_SEEN_FAST, check
    from ..data.repair import repair

    allow = split_names(args.allow)
    if args.fix:
        for line in repair(args.paths, args.fix, workers=args.workers, allow=allow):
            print(one_line(line), file=sys.stderr)
    report = check(
        args.paths, fast=args.fast, workers=args.workers, crop_size=args.pad_to, allow=allow
    )
    print_lines(to_json(report.as_dict(), indent=1) if args.json else report.text())
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
    print_lines(prepared.text())
    incomplete = not prepared.is_complete and not args.partial
    if incomplete:
        print(printable_lines(prepared.layouts()), file=sys.stderr)
    if incomplete or prepared.report["check"]["errors"]:
        sys.exit(1)


def _protocol(args: argparse.Namespace) -> None:
    """Write BenCo's JSON files for a training protocol and its test sets."""
    from ..data.protocol import write_protocol

    written = write_protocol(args.name, args.root, args.out)
    print_lines(written.text())
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
