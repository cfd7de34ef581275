"""Pre-flight checks for training: flags, data and earlier checkpoints."""

import argparse
import hashlib
import json
import logging
import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.files import read_yaml, unique_name, write_json, write_text
from ..core.untrusted import one_line
from ..data.check import MASK_PROBLEMS, Report, check
from ..data.listing import (
    BENCO_DATASETS,
    NATIVE_DATASET,
    NEGATIVE,
    SYNTH_DATASET,
    Listing,
    protocol_rows,
    read_listings,
)
from ..data.protocol import SAMPLES
from .checkpoints import LOG, saved_epochs
from .console import STARTUP_FILE
from .nonfinite_steps import SKIPPED_FILE
from .torchrun import LaunchError

logger = logging.getLogger(__name__)

# The smallest valid values of BenCo's numeric flags and of the launcher's.
SMALLEST = dict.fromkeys(("batch_size", "test_batch_size", "accum_iter", "image_size"), 1)
SMALLEST |= dict.fromkeys(("test_period", "epochs", "log_per_epoch_count"), 1)
SMALLEST |= dict.fromkeys(("lr", "blr", "min_lr", "weight_decay", "warmup_epochs"), 0)
SMALLEST |= dict.fromkeys(("clip_grad", "save_period", "max_skipped"), 0)

CLEANED = "cleaned"  # Folder of the lists that --skip_bad writes, in the output folder.
EXCLUDED = "excluded.txt"  # In that folder: the files that are left out, and why.
SHOWN_EXCLUDED = 20  # Number of them that are logged.
MASK_SAMPLE = 500  # Masks per dataset whose pixels are read before training.
BENCO_TEST_SET = "test_dataset"  # BenCo's name for a folder that is the only test set.


def check_flags(args: argparse.Namespace, own: argparse.Namespace, command: str) -> None:
    """Reject flags with which BenCo would fail, train wrongly or overwrite a run.

    Args:
        args: BenCo's flags.
        own: The launcher's flags.
        command: The command that resumes the run in ``--output_dir``, for an error message.

    Raises:
        LaunchError: If the flags contradict each other or the data.
    """
    if args.if_resizing == args.if_padding:
        problem = "are mutually exclusive" if args.if_padding else "are both missing"
        raise LaunchError(
            f"--if_resizing and --if_padding {problem}; pass one of them: --if_resizing (as in the "
            "paper) scales images to --image_size, --if_padding pads them"
        )
    _check_numbers(vars(args) | vars(own))
    _check_training_data(args)
    native = {SYNTH_DATASET, NATIVE_DATASET}
    kinds = {kind for kind, _ in protocol_rows(args.data_path)}
    if own.fit == "native" and not (kinds and kinds <= native):
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
    _check_sizes(args)
    check_accumulation(args, args.data_path)
    _check_output(args)
    saved = saved_epochs(Path(args.output_dir)) if args.output_dir else []
    if saved and not args.resume:
        raise LaunchError(
            f"--output_dir {args.output_dir} already contains checkpoints up to epoch {saved[-1]}; "
            f"choose a new folder or resume with: {command}"
        )


def _check_numbers(flags: dict[str, Any]) -> None:
    for name, smallest in SMALLEST.items():
        value = flags[name]
        if value is not None and not (math.isfinite(value) and value >= smallest):
            raise LaunchError(f"--{name} {value} is invalid; pass a number of at least {smallest}")


def _check_training_data(args: argparse.Namespace) -> None:
    """Check that the training data is a dataset or a protocol of datasets, not of other files."""
    rows = protocol_rows(args.data_path)
    for kind, path in rows:
        is_wrong = path.exists() and path.is_dir() != (kind == "ManiDataset")
        if kind in BENCO_DATASETS and is_wrong:
            raise LaunchError(
                f"--data_path {args.data_path} lists {path} as a {kind}; write ManiDataset for a "
                "folder and JsonDataset for a list"
            )
    expected = [path for kind, path in rows if kind != SYNTH_DATASET]
    listings = read_listings(args.data_path)
    _require_datasets("data_path", args, listings, expected if rows else [Path(args.data_path)])


def _require_datasets(
    flag: str, args: argparse.Namespace, listings: list[Listing], expected: list[Path]
) -> None:
    """Require that the paths are datasets, not files that list datasets in turn."""
    found = [listing.path for listing in listings]
    if found != expected:
        given = Path(getattr(args, flag))
        nested = next((path for path in expected if path not in found), given)
        raise LaunchError(
            f"--{flag} {given} cannot be used: BenCo needs a folder or a list of pairs, but "
            f"{nested} lists datasets; list them in {'a protocol' if nested == given else given}"
        )


def _check_sizes(args: argparse.Namespace) -> None:
    """Check that the images of all datasets in a protocol have the same size in every epoch."""
    sizes = []
    for kind, path in protocol_rows(args.data_path):
        content = read_yaml(path, "a YAML file") if kind == SYNTH_DATASET else None
        given = content.get("sizes") if isinstance(content, dict) else None
        sizes.append(given or [[args.image_size] * 2])
    if any(other != sizes[0] for other in sizes):
        raise LaunchError(
            f"--data_path {args.data_path} combines images of different sizes, which cannot be in "
            f"one batch; remove sizes from its {SYNTH_DATASET} files, or give all of its datasets "
            "the same"
        )


def check_accumulation(args: argparse.Namespace, data_path: str) -> None:
    """Reject ``--accum_iter`` if an epoch of the training data has fewer batches.

    Raises:
        LaunchError: If BenCo would never take an optimizer step.
    """
    entries = protocol_rows(data_path)
    images = SAMPLES * len(entries) or sum(len(item.pairs) for item in read_listings(data_path))
    processes = int(os.environ.get("WORLD_SIZE", 1))
    batches = math.ceil(images / processes) // args.batch_size
    if batches < args.accum_iter:
        raise LaunchError(
            f"--accum_iter {args.accum_iter} is more than the {batches} batches per process and "
            "epoch, so BenCo would never take an optimizer step; lower --accum_iter or "
            "--batch_size"
        )


def _check_test_sets(args: argparse.Namespace) -> None:
    """Check that BenCo can score every test set.

    BenCo drops an incomplete last batch, and scores it separately only in distributed mode.
    """
    test_sets = read_listings(args.test_data_path)
    if not test_sets:
        raise LaunchError(f"--test_data_path {args.test_data_path} contains no test sets; add one")
    path = Path(args.test_data_path)
    expected = [path] if path.is_dir() else [Path(item) for item in _read_json(path).values()]
    _require_datasets("test_data_path", args, test_sets, expected)
    smallest = 1 if "RANK" in os.environ else args.test_batch_size
    for test_set in test_sets:
        count = len(test_set.pairs)
        if count < smallest:
            raise LaunchError(
                f"the test set {test_set.path} has {count} images, but BenCo needs at least "
                f"{smallest}; add images, lower --test_batch_size, start training with torchrun, "
                "or remove the test set"
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
    cached = _cached_report(args, allow)
    if cached.is_file():
        logger.info(
            "data check: skipped, since an earlier check of these lists found no errors (%s)",
            cached,
        )
        return cached.read_text(encoding="utf-8")
    report = _fast_check(args, allow, mask_sample=MASK_SAMPLE)
    if report.errors:
        raise LaunchError(
            f"the data has errors:\n{report.text()}\nFix them, accept expected problems with "
            "--allow, exclude the pairs with --skip_bad, or start with --no_data_check"
        )
    logger.info("data check: no errors, %d warnings", len(report.warnings))
    with suppress(OSError):  # A home folder may be read-only; the next run checks again.
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_text(cached, report.text())
    return report.text()


def _cached_report(args: argparse.Namespace, allow: str) -> Path:
    """Return the path where the report of an accepted check is stored.

    The name depends on the names of all listed files and on the modification times of the lists
    and of the folders with the files, which change when files are added, deleted or replaced, but
    not when they are overwritten in place.
    """
    paths = (args.data_path, args.test_data_path)
    listings = [listing for path in paths for listing in read_listings(path)]
    names: list[str] = []
    folders: set[str] = set()
    for listing in listings:
        names += [f"{listing.name}\0{listing.path}\0{listing.trained}"]
        names += [f"{pair.image}\0{pair.mask}" for pair in listing.pairs]
        files = {*listing.images, *listing.masks}
        names += sorted(map(str, files))
        files.update(file for pair in listing.pairs for file in (pair.image, pair.mask) if file)
        folders.update(os.path.dirname(file) for file in files)
    lists = {*map(str, paths), *(str(listing.path) for listing in listings)}
    times = [f"{path}\0{_modified(path)}" for path in sorted(folders | lists)]
    digest = hashlib.sha256()
    for line in (__version__, os.getcwd(), allow, str(MASK_SAMPLE), *names, *times):
        digest.update(line.encode(errors="surrogateescape") + b"\n")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = os.environ.get("QMA_NET_CACHE") or Path(cache) / "qma-net"
    return Path(cache) / "data-checks" / f"{digest.hexdigest()}.txt"


def _modified(path: str) -> int:
    try:
        return os.stat(path or ".").st_mtime_ns
    except OSError:
        return 0


def exclude_faulty_pairs(args: argparse.Namespace, allow: str) -> None:
    """Write lists without the pairs in which the fast check finds an error.

    Raises:
        LaunchError: If there is no output folder, or a list has no valid pair.
    """
    _write_cleaned_lists(args, allow, *cleaned_lists(args))


def cleaned_lists(args: argparse.Namespace) -> tuple[Path, Path]:
    """Return the training and test lists that :func:`exclude_faulty_pairs` writes.

    Raises:
        LaunchError: If there is no output folder.
    """
    if not args.output_dir:
        raise LaunchError("--skip_bad needs a folder for its lists; set --output_dir")
    folder = Path(args.output_dir).resolve() / CLEANED
    return folder / "train.json", folder / "test_sets.json"


def _fast_check(args: argparse.Namespace, allow: str, *, mask_sample: int) -> Report:
    names = [name for name in allow.split(",") if name]
    paths = (args.data_path, args.test_data_path)
    return check(paths, fast=True, mask_sample=mask_sample, allow=names)


def _write_cleaned_lists(args: argparse.Namespace, allow: str, train: Path, test: Path) -> None:
    report = _fast_check(args, allow, mask_sample=MASK_SAMPLE)
    if {finding.problem for finding in report.errors} & set(MASK_PROBLEMS):
        # The sample contains faulty masks, so all masks must be read to find the others.
        report = _fast_check(args, allow, mask_sample=sys.maxsize)
    # Wrong pairing by sort order does not matter here, since a list names both files of a pair.
    faulty = {finding.file for finding in report.errors if finding.problem != "unpaired"}
    training_lists = len(read_listings(args.data_path))
    taken: set[str] = set()
    lists: list[str] = []
    used: set[str] = set()
    for number, (listing, pairs) in enumerate(report.pairs):
        valid = [pair for pair in pairs if not faulty & {str(pair.image), str(pair.mask)}]
        rows = [
            [str(pair.image.resolve()), str(pair.mask.resolve()) if pair.mask else NEGATIVE]
            for pair in valid
        ]
        used |= {str(file) for pair in valid for file in (pair.image, pair.mask)}
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
    _name_excluded_files(report, used, train.parent / EXCLUDED)
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


def _name_excluded_files(report: Report, used: set[str], path: Path) -> None:
    """Write a list of the files that ``--skip_bad`` leaves out, and log the first of them."""
    # BenCo would pair some files wrongly, but a list pairs them correctly, so they are used.
    lines = [
        f"{one_line(finding.file)}: {finding.problem}: {finding.remedy}"
        for finding in report.errors
        if finding.file not in used
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))
    for line in lines[:SHOWN_EXCLUDED]:
        logger.info("--skip_bad: excluded %s", line)
    if len(lines) > SHOWN_EXCLUDED:
        logger.info("--skip_bad: ... and %d more, see %s", len(lines) - SHOWN_EXCLUDED, path)
