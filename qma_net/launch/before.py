"""What is looked at before a training starts, so that it is refused in a line and not in a day."""

import argparse
import json
from pathlib import Path

from ..core.files import write_text
from .process import LaunchError, rank, say
from .saving import saved_epochs

CLEANED = "cleaned"  # folder of the lists of --skip_bad, in the output folder
BENCO_TEST_SET = "test_dataset"  # what BenCo calls a folder that is the only test set


def require_consistent(args: argparse.Namespace, resuming: str, *, fit: str = "") -> None:
    """What BenCo would end with a traceback, or overwrite.

    Args:
        args: BenCo's flags.
        resuming: the command that goes on with what is in ``--output_dir``.
        fit: the launcher's ``--fit``.

    Raises:
        LaunchError: in one line.
    """
    if args.if_resizing == args.if_padding:
        got = "both --if_resizing and --if_padding" if args.if_padding else "neither of the two"
        raise LaunchError(
            f"got {got}, expected --if_resizing (as the paper trains) or --if_padding: BenCo fits "
            "images to --image_size by one of them"
        )
    if fit == "native":
        from ..data.listing import FRESH, NATIVE, protocol_rows

        kinds = {kind for kind, _ in protocol_rows(args.data_path)}
        if not kinds or not kinds <= {FRESH, NATIVE}:
            raise LaunchError(
                f"got --fit native and --data_path {args.data_path} with "
                f"{', '.join(sorted(kinds - {FRESH, NATIVE})) or 'no protocol'}, expected a "
                f'protocol of crops at their own resolution: [["{NATIVE}", FOLDER OR LIST], '
                f'["{FRESH}", FILE.yaml]]'
            )
    path = Path(args.test_data_path)
    if path.is_file() and isinstance(_read_json(path), list):
        raise LaunchError(
            f"got --test_data_path {path}, which is a list, expected test sets as "
            f'{{"name": "path of a folder or list"}}, or a folder with Tp/ and Gt/: write '
            f'{{"{path.stem}": "{path}"}} to a file and give that'
        )
    saved = saved_epochs(Path(args.output_dir)) if args.output_dir else []
    if saved and not args.resume:
        raise LaunchError(
            f"got checkpoints to epoch {saved[-1]} in {args.output_dir} and no --resume, expected "
            f"a new --output_dir, or to go on there: {resuming}"
        )


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise LaunchError(f"got {path}, expected a JSON file: {error}") from None


def check_data(args: argparse.Namespace, allow: str) -> None:
    """Makes the fast check of ``qma-net data check`` on what is trained and tested on.

    Raises:
        LaunchError: with the list of faults.
        ListingError, FindingsError: as :func:`qma_net.data.check.check`.
    """
    report, _ = _checked(args, allow)
    if report.errors:
        raise LaunchError(
            f"got data with faults, expected none (qma-net data check):\n{report.text()}\nMend "
            "them; or name in --allow what is right here, leave the pairs out with --skip_bad, or "
            "start with --no_data_check"
        )
    print(report.text())
    say(f"data check --fast: {len(report.errors)} errors, {len(report.warnings)} warnings")


def skip_bad(args: argparse.Namespace, allow: str) -> dict[str, str]:
    """Writes lists without the pairs that the fast check finds faulty.

    The first rank writes; all ranks get the same paths, and BenCo reads them after a barrier.

    Returns:
        ``--data_path`` and ``--test_data_path`` with the files to give in place.
    """
    if not args.output_dir:
        raise LaunchError(
            "got --skip_bad and an empty --output_dir, expected a folder for its lists"
        )
    folder = Path(args.output_dir).resolve() / CLEANED
    flags = {"--data_path": folder / "train.json", "--test_data_path": folder / "test_sets.json"}
    if rank() == 0:
        _write_cleaned(args, allow, *flags.values())
    return {flag: str(path) for flag, path in flags.items()}


def _checked(args: argparse.Namespace, allow: str):
    from ..data.check import check_pairs

    paths = (args.data_path, args.test_data_path)
    allowed = [name for name in allow.split(",") if name]
    report, sets, _ = check_pairs(paths, fast=True, allow=allowed)
    return report, sets


def _write_cleaned(args: argparse.Namespace, allow: str, train: Path, test: Path) -> None:
    from ..core.files import unused
    from ..data.listing import FRESH, NATIVE, NEGATIVE, protocol_rows, read_listings

    report, sets = _checked(args, allow)
    # A pair whose names BenCo would pair wrongly is a right pair in a list.
    faulty = {one.file for one in report.errors if one.problem != "unpaired"}
    trained, taken, lists = len(read_listings(args.data_path)), set(), []
    for number, (listing, pairs) in enumerate(sets):
        rows = [
            [str(pair.image.resolve()), str(pair.mask.resolve()) if pair.mask else NEGATIVE]
            for pair in pairs
            if str(pair.image) not in faulty and str(pair.mask) not in faulty
        ]
        if not rows:
            raise LaunchError(
                f"got no pair of {listing.path} without a fault, expected some to train on: "
                "qma-net data check names the faults"
            )
        side = "train" if number < trained else "test"
        name = unused(f"{side}-{listing.name}".replace("/", "-"), taken)
        lists.append(str(train.parent / f"{name}.json"))
        write_text(lists[-1], json.dumps(rows, indent=1))
        left_out = len(listing.pairs) - len(rows)
        say(f"--skip_bad: {left_out} of {len(listing.pairs)} pairs of {listing.path} left out")
    if protocol := protocol_rows(args.data_path):
        cleaned = iter(lists[:trained])
        content = [
            [FRESH, str(path.resolve())]
            if kind == FRESH
            else [NATIVE if kind == NATIVE else "JsonDataset", next(cleaned)]
            for kind, path in protocol
        ]
    else:
        content = json.loads(Path(lists[0]).read_text())
    write_text(train, json.dumps(content, indent=1))
    names = [listing.name for listing, _ in sets[trained:]]
    if Path(args.test_data_path).is_dir():
        names = [BENCO_TEST_SET]
    write_text(test, json.dumps(dict(zip(names, lists[trained:], strict=True)), indent=1))
