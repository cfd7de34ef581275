"""Pre-flight checks for training: flags, data and earlier checkpoints."""

import argparse
import json
import logging
import math
import os
import sys
from pathlib import Path
from typing import Any

from ..core.files import unique_name, write_json
from ..data.check import MASK_PROBLEMS, Report, check
from ..data.listing import NATIVE_DATASET, NEGATIVE, SYNTH_DATASET, protocol_rows, read_listings
from .checkpoints import LOG, saved_epochs
from .console import STARTUP_FILE
from .nonfinite_steps import SKIPPED_FILE
from .torchrun import LaunchError, rank

logger = logging.getLogger(__name__)

# The smallest valid values of BenCo's numbers.
SMALLEST = dict.fromkeys(("batch_size", "test_batch_size", "accum_iter", "image_size"), 1)
SMALLEST |= dict.fromkeys(("test_period", "epochs", "log_per_epoch_count"), 1)
SMALLEST |= dict.fromkeys(("lr", "blr", "min_lr", "weight_decay", "warmup_epochs"), 0)

CLEANED = "cleaned"  # Folder of the lists that --skip_bad writes, in the output folder.
MASK_SAMPLE = 500  # Masks per dataset whose pixels are read before training.
BENCO_TEST_SET = "test_dataset"  # BenCo's name for a folder that is the only test set.


def check_flags(args: argparse.Namespace, command: str, *, fit: str = "") -> None:
    """Refuse BenCo's flags, and the launcher's ``--fit``, if BenCo would fail or overwrite a run.

    ``command`` resumes the run in ``--output_dir``, for the message.

    Raises:
        LaunchError: If the flags contradict each other or the data.
    """
    if args.if_resizing == args.if_padding:
        problem = "are mutually exclusive" if args.if_padding else "are both missing"
        raise LaunchError(
            f"--if_resizing and --if_padding {problem}; pass one of them: --if_resizing (as in the "
            "paper) scales images to --image_size, --if_padding pads them"
        )
    _check_numbers(args)
    native = {SYNTH_DATASET, NATIVE_DATASET}
    kinds = {kind for kind, _ in protocol_rows(args.data_path)}
    if fit == "native" and not (kinds and kinds <= native):
        others = ", ".join(sorted(kinds - native))
        raise LaunchError(
            f"--fit native cannot use --data_path {args.data_path}, which "
            f"{f'contains {others}' if others else 'is not a protocol'}; pass a protocol of "
            f'crops at original resolution: [["{NATIVE_DATASET}", FOLDER OR LIST], '
            f'["{SYNTH_DATASET}", FILE.yaml]]'
        )
    path = Path(args.test_data_path)
    if path.is_file() and isinstance(_read_json(path), list):
        raise LaunchError(
            f"--test_data_path {path} is a list, not a folder with Tp/ and Gt/ or a JSON file "
            f'with test sets; write {{"{path.stem}": "{path}"}} to a file and pass that'
        )
    _check_test_sets(args)
    _check_output(args)
    saved = saved_epochs(Path(args.output_dir)) if args.output_dir else []
    if saved and not args.resume:
        raise LaunchError(
            f"--output_dir {args.output_dir} already contains checkpoints up to epoch {saved[-1]}; "
            f"choose a new folder or resume with: {command}"
        )


def _check_numbers(args: argparse.Namespace) -> None:
    for name, smallest in SMALLEST.items():
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value >= smallest):
            raise LaunchError(f"--{name} {value} is invalid; pass a number of at least {smallest}")


def _check_test_sets(args: argparse.Namespace) -> None:
    """Check that every test set fills at least one batch, since BenCo drops incomplete ones."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    test_sets = read_listings(args.test_data_path)
    if not test_sets:
        raise LaunchError(f"--test_data_path {args.test_data_path} contains no test sets; add one")
    for test_set in test_sets:
        count = len(test_set.pairs)
        if count // processes < args.test_batch_size:
            raise LaunchError(
                f"the test set {test_set.path} has {count} images, but BenCo needs at least "
                f"--test_batch_size {args.test_batch_size} for each of {processes} processes; add "
                "images, lower --test_batch_size or remove the test set"
            )


def _check_output(args: argparse.Namespace) -> None:
    if args.output_dir:
        for name in (LOG, STARTUP_FILE, SKIPPED_FILE):
            path = Path(args.output_dir, name)
            if path.exists() and not path.is_file():
                raise LaunchError(f"{path} is not a file, so training cannot write to it; move it")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LaunchError(f"{path} is not valid JSON: {error}; fix or replace the file") from None


def check_data(args: argparse.Namespace, allow: str) -> str:
    """Run the fast check of ``qma-net data check`` on the data, and return the report.

    Raises:
        LaunchError: If the check finds errors.
        ListingError: If a path is not a dataset.
        FindingsError: If ``allow`` names an unknown problem.
    """
    report = _fast_check(args, allow, mask_sample=MASK_SAMPLE)
    if report.errors:
        raise LaunchError(
            f"the data has errors:\n{report.text()}\nFix them, accept expected problems with "
            "--allow, exclude the pairs with --skip_bad, or start with --no_data_check"
        )
    logger.info("data check: no errors, %d warnings", len(report.warnings))
    return report.text()


def exclude_faulty_pairs(args: argparse.Namespace, allow: str) -> list[str]:
    """Write lists without the pairs in which the fast check finds an error.

    The first rank writes the lists; every rank returns the same flags, which name them, and BenCo
    reads them after a barrier.

    Raises:
        LaunchError: If there is no output folder, or a list without a valid pair.
    """
    if not args.output_dir:
        raise LaunchError("--skip_bad needs a folder for its lists; set --output_dir")
    folder = Path(args.output_dir).resolve() / CLEANED
    train, test = folder / "train.json", folder / "test_sets.json"
    if rank() == 0:
        _write_cleaned_lists(args, allow, train, test)
    return ["--data_path", str(train), "--test_data_path", str(test)]


def _fast_check(args: argparse.Namespace, allow: str, *, mask_sample: int) -> Report:
    names = [name for name in allow.split(",") if name]
    paths = (args.data_path, args.test_data_path)
    return check(paths, fast=True, mask_sample=mask_sample, allow=names)


def _write_cleaned_lists(args: argparse.Namespace, allow: str, train: Path, test: Path) -> None:
    report = _fast_check(args, allow, mask_sample=MASK_SAMPLE)
    if {finding.problem for finding in report.errors} & set(MASK_PROBLEMS):
        # The sample contains faulty masks, so all of them must be read to find the others.
        report = _fast_check(args, allow, mask_sample=sys.maxsize)
    # Wrong pairing by name does not matter here, since a list names both files of a pair.
    faulty = {finding.file for finding in report.errors if finding.problem != "unpaired"}
    training_lists = len(read_listings(args.data_path))
    taken: set[str] = set()
    lists: list[str] = []
    for number, (listing, pairs) in enumerate(report.pairs):
        rows = [
            [str(pair.image.resolve()), str(pair.mask.resolve()) if pair.mask else NEGATIVE]
            for pair in pairs
            if not faulty & {str(pair.image), str(pair.mask)}
        ]
        if not rows:
            raise LaunchError(
                f"all pairs of {listing.path} have errors; run `qma-net data check` to list them"
            )
        use = "train" if number < training_lists else "test"
        name = unique_name(f"{use}-{listing.name}".replace("/", "-"), taken)
        lists.append(str(train.parent / f"{name}.json"))
        write_json(lists[-1], rows)
        excluded, total = len(listing.pairs) - len(rows), len(listing.pairs)
        logger.info("--skip_bad: excluded %d of %d pairs of %s", excluded, total, listing.path)
    cleaned = iter(lists[:training_lists])
    content = []
    for kind, path in protocol_rows(args.data_path):
        if kind == SYNTH_DATASET:
            content.append([kind, str(path.resolve())])
        else:
            content.append([kind if kind == NATIVE_DATASET else "JsonDataset", next(cleaned)])
    write_json(train, content or _read_json(Path(lists[0])))
    names = [listing.name for listing, _ in report.pairs[training_lists:]]
    if Path(args.test_data_path).is_dir():
        names = [BENCO_TEST_SET]
    write_json(test, dict(zip(names, lists[training_lists:], strict=True)))
