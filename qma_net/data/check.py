"""Dataset checks (``data check``), reported as text and as JSON.

:mod:`.facts` reads the files; the functions here compare their properties. The reference is the
loader of BenCo 0.1.45, which reads images with Pillow, ignores the EXIF orientation except in TIFF
files, and considers a pixel of a mask tampered if the mean of its three channels is above 127.5.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from ..core.errors import QMANetError
from ..core.images import TRANSPOSED_ORIENTATIONS
from ..core.untrusted import one_line
from .facts import Facts, inspect_files
from .listing import Listing, Pair, find_in_usual_folders, manipulation_types, read_listings
from .near_duplicates import find_copies
from .published import DATASETS, count_types, dataset_named

# A mask's stem may be its image's stem followed by one of these.
MASK_SUFFIX = re.compile(r"[-_ ](gt\d?|mask|forged|edgemask|groundtruth)$", re.IGNORECASE)
INVERTED_ABOVE = 0.75  # Fraction of white pixels above which a mask is probably inverted.
GREY_SHARE = 0.01  # A smaller fraction of gray pixels comes from soft edges.
SYSTEM_FILES = ("Thumbs.db", "desktop.ini")
COLOUR_MODES = {
    "L": "grayscale",
    "1": "black and white",
    "P": "a palette image",
    "RGBA": "an image with an alpha channel",
    "LA": "a grayscale image with an alpha channel",
    "array": "an array, not an image",
}

LOOKUPS = 32  # Number of files looked up at the same time.
FIX = "--fix does this"
SHOWN_PER_PROBLEM = 20
NOT_SEEN_FAST = (
    "--fast: checked only headers and file sizes, not pixels (damage after the header), mask "
    "values, duplicates and near-duplicates"
)

# Stable names of the problems that can be errors; colour-mode and relative-path never are.
ERRORS = (
    "unreadable size-mismatch unpaired mask-values mask-inverted empty-mask missing-file "
    "exif-orientation duplicate near-duplicate larger-than-training"
).split()
MASK_PROBLEMS = ("mask-values", "mask-inverted", "empty-mask")


class FindingsError(QMANetError):
    """Raised if a name in ``--allow`` is not a known problem."""


@dataclass(frozen=True)
class Finding:
    """A problem with one file."""

    file: str
    problem: str  # Its stable name.
    remedy: str  # What was found, what to do and what --fix does.
    fixable: bool  # Whether a copy made by --fix is free of the problem.


@dataclass
class Report:
    """Findings by severity, at most one per file and problem.

    Attributes:
        allow: Problems to report as warnings instead of errors.
        sets: A row for each dataset: its ``name`` and ``path``; the paper's ``dataset`` with this
            name, and the ``part`` if it is a subset's list (``TampCOCO`` and ``sp`` for
            ``sp_COCO_list``); the number of ``tampered`` and ``authentic`` images; the
            ``smallest`` and ``largest`` resolution by area, width x height, empty if unknown; and
            ``types``, the number of tampered images of each type in :data:`~.published.TYPES`.
            ``dataset``, ``part`` and ``types`` are absent if they are unknown or do not apply.
        pairs: Each dataset with its image-mask pairs, matched by stem in a folder and otherwise as
            listed; pairs with missing files are left out.
        images: The facts about each image in ``pairs``.
        masks: The facts about each mask in ``pairs``; a file may be in both ``images`` and
            ``masks``.
    """

    allow: Collection[str] = ()
    sets: list[dict] = field(default_factory=list)
    pairs: list[tuple[Listing, list[Pair]]] = field(default_factory=list, repr=False)
    images: dict[Path, Facts] = field(default_factory=dict, repr=False)
    masks: dict[Path, Facts] = field(default_factory=dict, repr=False)
    _errors: dict[tuple[str, str], Finding] = field(default_factory=dict, repr=False)
    _warnings: dict[tuple[str, str], Finding] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        unknown = set(self.allow) - set(ERRORS)
        if unknown:
            raise FindingsError(
                f"--allow {', '.join(sorted(unknown))} is not a known problem; choose from "
                f"{', '.join(ERRORS)}"
            )

    @property
    def errors(self) -> list[Finding]:
        """Problems that make BenCo read the data wrongly, and images that several sets share."""
        return list(self._errors.values())

    @property
    def warnings(self) -> list[Finding]:
        """Harmless duplicates, allowed problems, and files that BenCo reads differently."""
        return list(self._warnings.values())

    def error(
        self,
        file: str | os.PathLike[str],
        problem: str,
        advice: str,
        *,
        fix: str = "",
        harmless: bool = False,
    ) -> None:
        """Add an error, or a warning if it is harmless or allowed.

        ``advice`` states what was found and what to do; ``fix`` is what ``--fix`` does. Of several
        findings for the same file and problem, the first error counts, or else the first warning.
        """
        key = str(file), problem
        remedy = f"{advice} ({fix})" if fix else advice
        finding = Finding(*key, remedy, bool(fix))
        if not harmless and problem not in self.allow:
            self._warnings.pop(key, None)
            self._errors.setdefault(key, finding)
        elif key not in self._errors:
            self._warnings.setdefault(key, finding)

    def warning(
        self, file: str | os.PathLike[str], problem: str, advice: str, *, fix: str = ""
    ) -> None:
        """Add a warning; see :meth:`error`."""
        self.error(file, problem, advice, fix=fix, harmless=True)

    def as_dict(self) -> dict:
        """Return the output of ``--json``."""
        errors, warnings = (
            [{"file": item.file, "problem": item.problem, "remedy": item.remedy} for item in items]
            for items in (self.errors, self.warnings)
        )
        return {"errors": errors, "warnings": warnings, "sets": self.sets}

    def text(self) -> str:
        """Format the report for printing: findings by problem, then the counts."""
        lines = []
        for severity, findings in (("error", self.errors), ("warning", self.warnings)):
            by_problem = defaultdict(list)
            for finding in findings:
                by_problem[finding.problem].append(finding)
            for problem, group in by_problem.items():
                lines.append(f"{severity}: {problem}, {_plural(len(group), 'file')}")
                lines += [
                    f"  {one_line(item.file)}: {item.remedy}" for item in group[:SHOWN_PER_PROBLEM]
                ]
                if len(group) > SHOWN_PER_PROBLEM:
                    more = len(group) - SHOWN_PER_PROBLEM
                    lines.append(f"  ... and {more} more (--json lists all)")
        lines.append(_counts_table(self.sets))
        errors, warnings = len(self.errors), len(self.warnings)
        lines.append(f"{_plural(errors, 'error')}, {_plural(warnings, 'warning')}")
        return "\n".join(lines)


def check(
    paths: Iterable[str | os.PathLike[str]],
    *,
    fast: bool = False,
    mask_sample: int = 0,
    workers: int | None = None,
    crop_size: int = 0,
    allow: Collection[str] = (),
    progress: bool = True,
) -> Report:
    """Check datasets for files that BenCo would read differently than intended.

    Args:
        paths: Folders with Tp/ and Gt/, lists, protocols or JSON files of test sets. They are
            checked together: an image that two of them share is an error unless protocols train
            on both.
        fast: Read only headers and file sizes, not pixels, and do not compare images.
        mask_sample: With ``fast``, still read the pixels of up to this many evenly spaced masks per
            dataset. Inverted masks are then errors only if most of these masks are inverted.
        workers: Number of processes, by default one per core.
        crop_size: The training size in pixels if training pads images, otherwise 0; larger images
            are errors.
        allow: Problems to report as warnings.
        progress: Show a progress bar on standard error.

    Raises:
        QMANetError: If a path is not a dataset, a problem in ``allow`` is unknown, or a worker
            process was killed.
    """
    report = Report(allow)
    for path in paths:
        for listing in read_listings(path):
            pairs = _pair_by_name(listing, report) if listing.is_folder else listing.pairs
            files = _existing_files(pairs)
            existing = [pair for pair in pairs if _files_exist(pair, files, listing, report)]
            report.pairs.append((listing, existing))
    # No image may be in two groups. All datasets that protocols train on form one group, and each
    # other dataset is a group of its own.
    trained = [index for index, (listing, _) in enumerate(report.pairs) if listing.trained]
    groups = [trained[0] if index in trained else index for index in range(len(report.pairs))]
    report.images, report.masks = inspect_files(
        [pair.image for _, pairs in report.pairs for pair in pairs],
        [pair.mask for _, pairs in report.pairs for pair in pairs if pair.mask is not None],
        fast=fast,
        thumbnail=len(set(groups)) > 1,
        workers=workers,
        progress=progress,
    )
    if fast and mask_sample:
        sample = chain.from_iterable(_sample(pairs, mask_sample) for _, pairs in report.pairs)
        _, read = inspect_files(
            [], sample, fast=False, thumbnail=False, workers=workers, progress=progress
        )
        report.masks |= read
    for listing, pairs in report.pairs:
        # A few masks of large regions must not keep training or evaluation from starting.
        lenient = fast and not _most_are_inverted(pairs, report.masks)
        for pair in dict.fromkeys(pairs):
            _check_pair(pair, crop_size, report, allow_inverted=lenient)
        report.sets.append(_count(listing, pairs, report.images))
    _check_rows(report)
    _check_duplicates(report)
    _check_near_duplicates(groups, report)
    return report


def _pair_by_name(listing: Listing, report: Report) -> list[Pair]:
    """Pair a folder's files by stem and report where BenCo's sort order differs."""
    images = _files_by_stem(listing.images, "Gt", report)
    masks = _files_by_stem(listing.masks, "Tp", report)
    for stem in sorted(images.keys() ^ masks.keys()):
        file, other = (images[stem], "Gt") if stem in images else (masks[stem], "Tp")
        advice = f"has no counterpart in {other}/ and shifts the pairs after it: add one with the "
        report.error(file, "unpaired", f"{advice}stem {stem!r}, or delete this file")
    pairs = [Pair(images[stem], masks[stem]) for stem in images if stem in masks]
    if images.keys() == masks.keys():
        for pair, mask in zip(pairs, sorted(masks.values()), strict=True):
            if pair.mask != mask:
                advice = f"is paired with {mask.name} by BenCo, which sorts by name: give image "
                report.error(pair.image, "unpaired", f"{advice}and mask the same stem", fix=FIX)
    return pairs


def _files_by_stem(files: Iterable[Path], other: str, report: Report) -> dict[str, Path]:
    """Index files by stem and report those that cannot be part of a pair."""
    by_stem: dict[str, Path] = {}
    for file in files:
        stem = MASK_SUFFIX.sub("", file.stem)
        if file.name.startswith(".") or file.name in SYSTEM_FILES:
            advice = "is a hidden file, which BenCo would pair as data: delete it"
        elif os.path.isdir(file):
            advice = f"is a folder inside {file.parent.name}/: move it out"
        elif stem in by_stem:
            advice = f"has the same stem as {by_stem[stem].name}, so one file in {other}/ would "
            advice += "belong to both: rename one"
        else:
            by_stem[stem] = file
            continue
        report.error(file, "unpaired", advice)
    return by_stem


def _existing_files(pairs: Iterable[Pair]) -> set[Path]:
    """Find the files that exist, in parallel, since each lookup may wait for the network."""
    files = [file for pair in pairs for file in (pair.image, pair.mask) if file is not None]
    chunks = [files[begin : begin + 1000] for begin in range(0, len(files), 1000)]
    with ThreadPoolExecutor(LOOKUPS) as pool:
        return set(chain.from_iterable(pool.map(_keep_existing, chunks)))


def _keep_existing(files: Iterable[Path]) -> list[Path]:
    return [file for file in files if os.path.isfile(file)]


def _files_exist(pair: Pair, files: Collection[Path], listing: Listing, report: Report) -> bool:
    exist = True
    for file in (pair.image, pair.mask):
        if file is None:
            continue
        if file in files:
            if not file.is_absolute() and not listing.is_folder:
                advice = f"has relative paths, which only work in {Path.cwd()}: make them absolute"
                report.warning(listing.path, "relative-path", advice, fix=FIX)
            continue
        exist = False
        folder = listing.path.parent
        if (folder / file).is_file():
            advice = f"exists only relative to {folder.resolve()}: make its path absolute in "
        elif elsewhere := find_in_usual_folders(listing.path, file):
            advice = f"does not exist, but {elsewhere} does: correct its path in "
        else:
            advice = "does not exist: download it or remove it from "
        report.error(file, "missing-file", f"{advice}{listing.path}", fix="--fix leaves it out")
    return exist


def _sample(pairs: list[Pair], count: int) -> list[Path]:
    masks = [pair.mask for pair in pairs if pair.mask is not None]
    return masks[:: max(1, -(-len(masks) // count))]


def _most_are_inverted(pairs: list[Pair], masks: dict[Path, Facts]) -> bool:
    shares = [masks[pair.mask].white for pair in pairs if pair.mask is not None]
    known = [share for share in shares if share is not None]
    return sum(share > INVERTED_ABOVE for share in known) > len(known) / 2


def _check_pair(pair: Pair, crop_size: int, report: Report, *, allow_inverted: bool) -> None:
    image = report.images[pair.image]
    mask = report.masks[pair.mask] if pair.mask is not None else None
    for file, facts in ((pair.image, image), (pair.mask, mask)):
        if file and facts and facts.fault:
            advice = f"{facts.fault}: download it again, or remove the pair"
            report.error(file, "unreadable", advice)
    if image.fault:
        return
    if image.mode != "RGB":
        deep = "an image of 16 bits or more" if "I" in image.mode else image.mode
        kind = COLOUR_MODES.get(image.mode, deep)
        advice = f"is {kind}; BenCo converts it to RGB with Pillow"
        report.warning(pair.image, "colour-mode", advice)
    if crop_size and max(image.size) > crop_size:
        advice = f"is {_dimensions(image.size)}, larger than the padded {crop_size}x{crop_size}, "
        advice += "so BenCo would crop it: train with resizing instead"
        report.error(pair.image, "larger-than-training", advice)
    mask_size = mask.size if mask is not None and mask.size != (0, 0) else image.size
    is_transposed = mask_size == image.size[::-1] != image.size
    if is_transposed and image.orientation in TRANSPOSED_ORIENTATIONS:
        advice = "has a mask of the rotated image, but BenCo reads pixels as stored: rotate it back"
        if image.is_oriented:
            advice = "has a mask of the stored pixels, but BenCo rotates TIFF files: rotate it, too"
        report.error(pair.image, "exif-orientation", advice, fix=FIX)
        mask_size = image.size
    elif image.orientation != 1:
        effect = "which viewers and OpenCV apply and BenCo ignores; nothing to do for BenCo, but "
        effect += "other tools may need it removed"
        if image.is_oriented:
            effect = "which BenCo applies to TIFF files: check that its mask is rotated as well"
        advice = f"has EXIF orientation {image.orientation}, {effect}"
        report.warning(pair.image, "exif-orientation", advice)
    if pair.mask is None or mask is None or mask.fault:
        return
    if mask_size != image.size:
        corrected = "use a corrected mask from the authors"
        rotate = "rotate the mask by 90 degrees (check the direction)"
        sizes = f"is {_dimensions(image.size)}, its mask {pair.mask} {_dimensions(mask_size)}"
        advice = f"{sizes}: {rotate if is_transposed else corrected}"
        report.error(pair.image, "size-mismatch", advice)  # Other images may share the mask.
    _check_mask(pair.mask, mask, report, allow_inverted=allow_inverted)


def _check_mask(file: Path, mask: Facts, report: Report, *, allow_inverted: bool) -> None:
    """Report at most one problem with a mask's values: the first that applies."""
    error = partial(report.error, file, "mask-values")
    warning = partial(report.warning, file, "mask-values")
    if mask.maximum == 0:
        advice = "is empty, although its image is listed as tampered: list the image with "
        report.error(file, "empty-mask", f"{advice}'Negative', or find the right mask")
    elif mask.mode == "array":
        advice = f"is {file.suffix}, but BenCo only reads images: save it as a PNG of 0 and 255"
        error(advice, fix="--fix does this for values above 0")
    elif mask.white is None or mask.grey is None or mask.coloured is None:
        if mask.mode not in ("L", "1", "RGB", "RGBA"):  # Only the header was read.
            warning(f"has mode {mask.mode}: run without --fast to see how BenCo reads it")
    elif mask.alpha and mask.white in (0, 1):
        advice = "has its region in the alpha channel, which BenCo ignores: save the alpha channel "
        error(f"{advice}as a grayscale PNG")
    elif mask.coloured > 0:
        advice = f"is colored in {mask.coloured:.1%} of its pixels: write the tampered color as "
        error(f"{advice}255 and the rest as 0 (data prepare does this for Columbia)")
    elif mask.white == 0:
        advice = f"has no value above 127 (maximum {mask.maximum}), so BenCo reads it as empty: "
        error(f"{advice}write tampered pixels as 255", fix="--fix does this for values above 0")
    elif mask.mode == "P" or mask.mode.startswith(("I", "F")):
        advice = f"has mode {mask.mode}, and BenCo reads {mask.white:.1%} of it as tampered: save "
        advice += "it as 8-bit grayscale with 0 and 255"
        error(advice, fix=FIX, harmless=bool(mask.two_valued))
    elif mask.grey > GREY_SHARE:
        advice = f"is neither black nor white in {mask.grey:.1%} of its pixels, and BenCo's "
        error(f"{advice}threshold is 127.5: write 0 and 255 yourself if that is not intended")
    elif mask.white > INVERTED_ABOVE:
        advice = f"is {mask.white:.0%} white, which BenCo reads as tampered: invert it, or pass "
        advice += "--allow mask-inverted if this is intended"
        fix = "--fix inverts it"
        report.error(file, "mask-inverted", advice, fix=fix, harmless=allow_inverted)
    elif not mask.two_valued:
        advice = "has edge values between 0 and 255, and BenCo's threshold is 127.5"
        warning(advice, fix="--fix applies it")


def _dimensions(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _check_rows(report: Report) -> None:
    """Report images listed more than once: an error if the rows contradict each other."""
    for listing, pairs in report.pairs:
        rows: dict[Path, list[Path | None]] = defaultdict(list)
        for pair in pairs:
            rows[pair.image].append(pair.mask)
        for image, masks in rows.items():
            if len(masks) == 1:
                continue
            how = "more than once" if len(set(masks)) == 1 else "with several masks"
            if None in masks and len(set(masks)) > 1:
                how = "as tampered and as authentic"
            advice = f"is listed {how} in {listing.path}: remove all rows but one"
            report.error(image, "duplicate", advice, harmless=len(set(masks)) == 1)


def _check_duplicates(report: Report) -> None:
    """Report identical files: a warning within a set or between training sets, else an error."""
    copies = defaultdict(list)
    for listing, pairs in report.pairs:
        for pair in pairs:
            if digest := report.images[pair.image].digest:
                copies[digest].append((listing, pair.image))
    for (first_listing, first), *others in copies.values():
        for listing, file in others:
            advice = f"is identical to {first} ({first_listing.name}): remove one of the two"
            if file == first:
                advice = f"is also listed in {first_listing.path}: remove it from one of the lists"
            leaks = listing is not first_listing and not (listing.trained and first_listing.trained)
            report.error(file, "duplicate", advice, harmless=not leaks)


def _check_near_duplicates(groups: list[int], report: Report) -> None:
    # Near-duplicates within a group are no problem: many datasets have several versions of a photo.
    images = report.images
    listings: dict[tuple[Path, int], Listing] = {}
    for (listing, pairs), group in zip(report.pairs, groups, strict=True):
        for pair in pairs:
            if images[pair.image].thumbnail:
                listings.setdefault((pair.image, group), listing)
    files = list(listings)
    thumbnails = [images[file].thumbnail for file, _ in files]
    for copy, first, correlation in find_copies(thumbnails, [group for _, group in files]):
        file, original = files[copy][0], files[first][0]
        if images[file].digest == images[original].digest:
            continue  # Already reported as a duplicate.
        advice = f"shows the same photo as {original} ({listings[files[first]].name}), saved again,"
        advice += f" resized or cropped (correlation {correlation:.2f}): remove one of the two"
        report.error(file, "near-duplicate", advice)


def _count(listing: Listing, pairs: list[Pair], images: dict[Path, Facts]) -> dict:
    """Return the report row of a dataset (see :class:`Report`)."""
    sizes = [images[pair.image].size for pair in pairs]
    sizes = sorted((size for size in sizes if size[0]), key=lambda size: size[0] * size[1])
    tampered = [pair.image for pair in pairs if pair.mask is not None]
    dataset, part = dataset_named(listing.name)
    row: dict[str, object] = {
        "name": listing.name,
        "path": str(listing.path),
        "dataset": dataset.name if dataset and dataset.in_paper else None,
        "part": part or None,
        "tampered": len(tampered),
        "authentic": len(pairs) - len(tampered),
        "smallest": _dimensions(sizes[0]) if sizes else "",
        "largest": _dimensions(sizes[-1]) if sizes else "",
    }
    if dataset:
        types = manipulation_types(listing.name, tampered)
        row["types"] = count_types(types.get(image) for image in tampered)
    return {key: value for key, value in row.items() if value is not None}


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _counts_table(sets: list[dict]) -> str:
    """Format counts and resolutions as a table, next to those in the paper's Tables 3 and 4."""
    lines = [
        "| set | tampered | authentic | resolutions | paper's count |",
        "|---|---|---|---|---|",
    ]
    for row in sets:
        paper = DATASETS.get(row.get("dataset", "")) if "part" not in row else None
        expected = ""
        if paper:
            resolutions = " to ".join(dict.fromkeys((paper.smallest, paper.largest)))
            expected = f"{paper.tampered}, {resolutions}"
        sizes = " to ".join(dict.fromkeys((row["smallest"], row["largest"])))
        cells = (row["name"], row["tampered"], row["authentic"], sizes, expected)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
