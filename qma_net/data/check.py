"""Is a dataset what BenCo will take it for? One pass over its files, every fault by name.

Two halves: :func:`observe` opens one file and reports plain facts (in parallel, the only part that
costs), and the judges compare facts and name the faults. BenCo's loader is the measure: it reads
with Pillow, ignores EXIF orientation, and calls a mask's pixel tampered where the mean of its
three channels is above 127.5.
"""

import hashlib
import io
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..files import cores
from .listing import Listing, Pair, read_listings

# A mask's stem may be its image's stem and one of these.
MASK_SUFFIX = re.compile(r"[-_ ](gt\d?|mask|forged|edgemask|groundtruth)$", re.IGNORECASE)
ARRAY_SUFFIXES = (".npz", ".npy")
INVERTED_ABOVE = 0.75  # share of white
GREY = (32, 223)  # between these a mask's pixel is neither black nor white, JPEG noise apart
GREY_SHARE = 0.01  # of the mask: less is an edge, more is something else than a mask
ORIENTATION = 0x0112  # EXIF tag
TRANSPOSING = (5, 6, 7, 8)  # orientations that exchange height and width
SHOWN_PER_PROBLEM = 20

# The names of problems are stable. Warnings alone: colour-mode, relative-path.
ERRORS = (
    "unreadable size-mismatch unpaired mask-values mask-inverted empty-mask missing-file "
    "exif-orientation duplicate larger-than-training"
).split()


@dataclass(frozen=True)
class Finding:
    """A fault: the file, the problem's stable name, what was found and what to do."""

    file: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class Facts:
    """What one file is. ``size`` is (width, height) as stored; mask figures are None unread.

    ``white`` is the share that BenCo reads as tampered, ``grey`` the share between :data:`GREY`,
    ``coloured`` the share whose channels differ, ``top`` the largest value.
    """

    fault: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    orientation: int = 1
    digest: str = ""
    two_valued: bool | None = None
    white: float | None = None
    grey: float | None = None
    coloured: float | None = None
    top: int | None = None


EMPTY = Facts(fault="is empty (0 bytes)")


@dataclass
class Report:
    """Findings by severity, and a row of figures per dataset."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    sets: list[dict] = field(default_factory=list)

    def as_dict(self) -> dict:
        """What ``--json`` prints."""
        return {
            "errors": [asdict(finding) for finding in self.errors],
            "warnings": [asdict(finding) for finding in self.warnings],
            "sets": self.sets,
        }

    def text(self) -> str:
        """What a person reads: findings by problem, then the counts beside the paper's."""
        lines = []
        for title, findings in (("error", self.errors), ("warning", self.warnings)):
            by_problem = defaultdict(list)
            for finding in findings:
                by_problem[finding.problem].append(finding)
            for problem, group in by_problem.items():
                lines.append(f"{title}: {problem}, {len(group)} file{'s' * (len(group) > 1)}")
                lines += [f"  {one.file}: {one.remedy}" for one in group[:SHOWN_PER_PROBLEM]]
                if len(group) > SHOWN_PER_PROBLEM:
                    more = len(group) - SHOWN_PER_PROBLEM
                    lines.append(f"  ... and {more} more (--json lists all)")
        lines.append(_counts_table(self.sets))
        counts = ((len(self.errors), "error"), (len(self.warnings), "warning"))
        lines.append(", ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts))
        return "\n".join(lines)


def check(
    paths: Iterable[str | os.PathLike],
    fast: bool = False,
    workers: int | None = None,
    crop_size: int = 0,
    allow: Iterable[str] = (),
    progress: bool = True,
) -> Report:
    """Checks datasets against what BenCo would make of them.

    Args:
        paths: folders with Tp/ and Gt/, lists, protocols or test-sets JSONs, checked together:
            the same image in two of them is an error unless one protocol trains on both.
        fast: headers and file sizes only; pixels, values and duplicates stay unseen.
        workers: processes, default one per core.
        crop_size: the training size in pixels if training pads; larger images are then errors.
        allow: problems that are known to be right here, reported as warnings.
        progress: show a progress bar on standard error.

    Raises:
        ListingError: for a path that is not a dataset.
    """
    return check_pairs(paths, fast, workers, crop_size, allow, progress)[0]


def check_pairs(
    paths, fast=False, workers=None, crop_size=0, allow=(), progress=True
) -> tuple[Report, list[tuple[Listing, list[Pair]]], dict[tuple[Path, bool], Facts]]:
    """As :func:`check`; also the pairs that the names mean and are there, and all facts."""
    report = _Judge(set(allow))
    work, jobs = [], {}
    for listing in [one for path in paths for one in read_listings(path)]:
        pairs = _paired_by_name(listing, report) if listing.is_folder else listing.pairs
        pairs = [pair for pair in pairs if _present(pair, listing, report)]
        work.append((listing, pairs))
        jobs |= {(pair.image, False): None for pair in pairs}
        jobs |= {(pair.mask, True): None for pair in pairs if pair.mask is not None}
    facts = observe_all(list(jobs), fast, workers, progress)
    for listing, pairs in work:
        for pair in dict.fromkeys(pairs):
            _judge_pair(pair, facts, crop_size, report)
        report.sets.append(_figures(listing, pairs, facts))
    _judge_duplicates(work, facts, report)
    return report, work, facts


def observe_all(
    jobs: list[tuple[Path, bool]], fast: bool, workers: int | None, progress: bool
) -> dict[tuple[Path, bool], Facts]:
    """The facts of every (file, whether it is a mask), in parallel."""
    workers = min(workers or cores(), max(1, len(jobs) // 16))
    bar = tqdm(total=len(jobs), desc="check", unit="file", disable=not progress)
    with bar:
        if workers == 1:
            with warnings.catch_warnings():
                _silence()
                found = map(observe, *_args(jobs, fast))
                return dict(zip(jobs, _counted(found, bar), strict=True))
        forkserver = get_context("forkserver")
        with ProcessPoolExecutor(workers, forkserver, initializer=_silence) as pool:
            found = pool.map(observe, *_args(jobs, fast), chunksize=32)
            return dict(zip(jobs, _counted(found, bar), strict=True))


def observe(path: Path, is_mask: bool = False, fast: bool = False) -> Facts:
    """Reads one file: whole, or (``fast``) only its header. Raises nothing."""
    try:
        if path.suffix.lower() in ARRAY_SUFFIXES:
            return Facts(mode="array")
        if fast:
            if os.path.getsize(path) == 0:
                return EMPTY
            with Image.open(path) as image:
                return _header(image)
        data = path.read_bytes()
        if not data:
            return EMPTY
        with Image.open(io.BytesIO(data)) as image:
            seen = _header(image)
            image.load()
            if is_mask:
                return replace(seen, **_mask_figures(image))
            return replace(seen, digest=hashlib.blake2b(data, digest_size=16).hexdigest())
    except Image.DecompressionBombError as error:
        return Facts(fault=f"claims more pixels than any photograph has ({error})")
    except (OSError, SyntaxError, ValueError, EOFError, TypeError) as error:
        return Facts(fault=f"cannot be decoded ({str(error).split(chr(10))[0]})")


def _args(jobs, fast) -> tuple:
    return [path for path, _ in jobs], [is_mask for _, is_mask in jobs], [fast] * len(jobs)


def _silence() -> None:
    """Pillow warns of large images and odd EXIF; what matters of it is a finding here."""
    warnings.filterwarnings("ignore", module="PIL")


def _counted(found: Iterable, bar: tqdm) -> Iterator:
    for one in found:
        bar.update()
        yield one


def _header(image: Image.Image) -> Facts:
    has_exif = "exif" in image.info or image.format == "TIFF"
    orientation = image.getexif().get(ORIENTATION, 1) if has_exif else 1
    return Facts(size=image.size, mode=image.mode, orientation=orientation)


def _mask_figures(image: Image.Image) -> dict:
    """How BenCo will read a mask's values."""
    if image.mode in ("L", "1"):
        counts = np.array((image if image.mode == "L" else image.convert("L")).histogram())
        coloured = 0.0
    else:
        pixels = np.asarray(image.convert("RGB"))
        spread = pixels.max(axis=-1).astype(int) - pixels.min(axis=-1)
        coloured = float((spread > GREY[0]).mean())
        mean = pixels.mean(axis=-1).round().astype(int)
        counts = np.bincount(mean.ravel(), minlength=256)
    total = counts.sum()
    return {
        "two_valued": bool(counts[1:255].sum() == 0) and coloured == 0,
        "white": float(counts[128:].sum() / total),
        "grey": float(counts[GREY[0] + 1 : GREY[1]].sum() / total),
        "coloured": coloured,
        "top": int(counts.nonzero()[0].max()),
    }


class _Judge(Report):
    """A report under way: one finding per file and problem, and the allowed ones as warnings."""

    def __init__(self, allow: set[str]):
        super().__init__()
        unknown = allow - set(ERRORS)
        if unknown:
            raise ValueError(
                f"got --allow {', '.join(sorted(unknown))}, expected some of {', '.join(ERRORS)}"
            )
        self._allow, self._seen = allow, set()

    def error(self, file, problem: str, remedy: str) -> None:
        if problem in self._allow:
            self.warning(file, problem, remedy)
        else:
            self._add(self.errors, file, problem, remedy)

    def warning(self, file, problem: str, remedy: str) -> None:
        self._add(self.warnings, file, problem, remedy)

    def _add(self, findings, file, problem, remedy) -> None:
        if (str(file), problem) not in self._seen:
            self._seen.add((str(file), problem))
            findings.append(Finding(str(file), problem, remedy))


def mask_as_benco(path: Path) -> np.ndarray:
    """The pixels that BenCo reads as tampered, bool ``(H, W)``."""
    return np.asarray(Image.open(path).convert("RGB")).mean(axis=-1) > 127.5


def stem_of(path: Path) -> str:
    """What an image and its mask share: the name without suffix and without a mask's suffix."""
    return MASK_SUFFIX.sub("", path.stem)


def _paired_by_name(listing: Listing, report: _Judge) -> Iterator[Pair]:
    """The pairs that the names mean, and a finding for what BenCo's sort order makes of them."""
    images, masks = {}, {}
    for files, found, other in ((listing.images, images, "Gt"), (listing.masks, masks, "Tp")):
        for file in files:
            if file.name.startswith(".") or file.name in ("Thumbs.db", "desktop.ini"):
                report.error(
                    file, "unpaired", "a hidden file, which BenCo pairs as data: delete it"
                )
            elif os.path.isdir(file):
                report.error(file, "unpaired", f"a folder inside {file.parent.name}/: move it out")
            elif stem_of(file) in found:
                twin = found[stem_of(file)].name
                remedy = f"has the same stem as {twin}: one {other}/ file cannot pair with both"
                report.error(file, "unpaired", remedy)
            else:
                found[stem_of(file)] = file
    for stem in sorted(images.keys() ^ masks.keys()):
        lonely, other = (images[stem], "Gt") if stem in images else (masks[stem], "Tp")
        remedy = f"has no counterpart in {other}/, and shifts the pairs after it: add that, or "
        report.error(lonely, "unpaired", remedy + f"delete it; stem {stem!r} is looked for")
    pairs = [Pair(images[stem], masks[stem]) for stem in images if stem in masks]
    order = [masks[stem_of(pair.image)] for pair in pairs]
    if images.keys() == masks.keys() and order != sorted(order):
        for pair, taken in zip(pairs, sorted(order), strict=True):
            if pair.mask != taken:
                remedy = f"sorted by name, BenCo pairs it with {taken.name}: give image and mask "
                report.error(pair.image, "unpaired", remedy + "the same stem (--fix does)")
    yield from pairs


def _present(pair: Pair, listing: Listing, report: _Judge) -> bool:
    """Whether both files are there from here; a finding where they are not."""
    present = True
    for file in (pair.image, pair.mask):
        if file is None:
            continue
        if os.path.isfile(file):
            if not file.is_absolute() and not listing.is_folder:
                remedy = f"lists relative paths, which only work from {Path.cwd()}: make them "
                report.warning(listing.path, "relative-path", remedy + "absolute (--fix does)")
            continue
        present = False
        beside = listing.path.parent / file
        if beside.is_file():
            remedy = f"is found from {beside.parent.resolve()} only: make the paths of "
        else:
            remedy = "is listed but not there: download it, or take it out of "
        report.error(file, "missing-file", f"{remedy}{listing.path} {_absolute(beside)}".strip())
    return present


def _absolute(beside: Path) -> str:
    return "absolute (--fix does)" if beside.is_file() else "(--fix does)"


def _judge_pair(pair: Pair, facts: dict, crop_size: int, report: _Judge) -> None:
    image, mask = facts[pair.image, False], facts.get((pair.mask, True))
    for file, seen in ((pair.image, image), (pair.mask, mask)):
        if seen and seen.fault:
            report.error(file, "unreadable", f"{seen.fault}: fetch it again, or take the pair out")
    if image.fault:
        return
    _judge_image(pair.image, image, crop_size, report)
    fits = mask is None or mask.fault or mask.mode == "array" or mask.size == image.size
    if image.orientation in TRANSPOSING and not fits and mask.size == image.size[::-1]:
        remedy = (
            "its mask was drawn on the turned photograph, BenCo reads pixels as stored: turn the "
            "mask back (--fix does)"
        )
        report.error(pair.image, "exif-orientation", remedy)
    else:
        if image.orientation != 1:
            remedy = (
                f"orientation {image.orientation}: viewers and OpenCV turn it, BenCo and its mask "
                "do not; nothing to do for BenCo, take the tag out for other tools"
            )
            report.warning(pair.image, "exif-orientation", remedy)
        if not fits:
            turned = mask.size == image.size[::-1]
            remedy = f"is {_by(mask.size)}, its image {_by(image.size)}: " + (
                "turn it by 90 degrees (look which way)"
                if turned
                else "take the authors' corrected mask"
            )
            report.error(pair.mask, "size-mismatch", remedy)
    if mask and not mask.fault:
        _judge_mask(pair.mask, mask, report)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _judge_image(file: Path, image: Facts, crop_size: int, report: _Judge) -> None:
    if image.mode != "RGB":
        what = {"L": "greyscale", "1": "black and white", "CMYK": "CMYK", "P": "a palette image"}
        what |= {"RGBA": "with alpha", "LA": "grey with alpha", "array": "an array, not an image"}
        name = what.get(image.mode, "16 bits or more" if "I" in image.mode else image.mode)
        report.warning(file, "colour-mode", f"is {name}: BenCo converts it to RGB with Pillow")
    if crop_size and max(image.size) > crop_size:
        remedy = (
            f"is {_by(image.size)}, larger than the padded {crop_size}x{crop_size}: BenCo would "
        )
        report.error(file, "larger-than-training", remedy + "crop it; resize instead")


def _judge_mask(file: Path, mask: Facts, report: _Judge) -> None:
    """At most one finding about a mask's values: the first of these that explains it."""
    if mask.mode == "array":
        remedy = f"is {file.suffix}, BenCo reads images only: write it as PNG of 0 and 255 "
        report.error(file, "mask-values", remedy + "(--fix does, above 0 as tampered)")
    elif mask.white is None:  # the header was all that was read
        if mask.mode not in ("L", "1", "RGB", "RGBA"):
            remedy = f"has mode {mask.mode}: run without --fast to see what BenCo makes of it"
            report.warning(file, "mask-values", remedy)
    elif mask.top == 0:
        remedy = "marks nothing though its image is listed as tampered: list the image with "
        report.error(file, "empty-mask", remedy + "'Negative', or find the right mask")
    elif mask.coloured > 0:
        remedy = f"is coloured ({mask.coloured:.1%} of it): write which colour is tampered as 255"
        report.error(file, "mask-values", remedy + ", the rest as 0 (data prepare knows Columbia)")
    elif mask.white == 0:
        remedy = f"has no value above 127 (largest {mask.top}), so BenCo reads it as all black: "
        report.error(file, "mask-values", remedy + "write tampered as 255 (--fix: above 0)")
    elif mask.mode == "P" or mask.mode.startswith(("I", "F")):
        remedy = f"has mode {mask.mode}; BenCo reads {mask.white:.1%} of it as tampered: write it "
        severe = report.warning if mask.two_valued else report.error
        severe(file, "mask-values", remedy + "as 8-bit grey of 0 and 255 (--fix does)")
    elif mask.grey > GREY_SHARE:
        remedy = f"is neither black nor white in {mask.grey:.1%} of it: BenCo cuts at 127.5; write "
        report.error(file, "mask-values", remedy + "0 and 255 yourself if that is not meant")
    elif mask.white > INVERTED_ABOVE:
        remedy = f"is {mask.white:.0%} white, white is tampered for BenCo: invert it (--fix does), "
        report.error(file, "mask-inverted", remedy + "or say --allow mask-inverted if it is right")
    elif not mask.two_valued:
        remedy = "has values between 0 and 255 at its edges: BenCo cuts at 127.5; --fix writes that"
        report.warning(file, "mask-values", remedy)


def _judge_duplicates(work: list, facts: dict, report: _Judge) -> None:
    """The same bytes twice: within a set or a protocol a warning, across other sets an error."""
    places = defaultdict(list)
    for listing, pairs in work:
        for pair in pairs:
            if digest := facts[pair.image, False].digest:
                places[digest].append((listing, pair.image))
    for first, *others in places.values():
        for listing, file in others:
            where = f"{first[1]} ({first[0].name})"
            remedy = f"holds the same bytes as {where}: take one of the two out"
            if file == first[1] and listing is first[0]:
                remedy = f"is listed more than once in {listing.path}: take one line out"
            leak = listing is not first[0] and not (listing.trained and first[0].trained)
            (report.error if leak else report.warning)(file, "duplicate", remedy)


def _figures(listing: Listing, pairs: list[Pair], facts: dict) -> dict:
    """Counts and the range of resolutions of one dataset, as in Tables 3 and 4."""
    sizes = [facts[pair.image, False].size for pair in pairs]
    sizes = sorted((size for size in sizes if size[0]), key=lambda size: size[0] * size[1])
    authentic = sum(pair.mask is None for pair in pairs)
    return {
        "name": listing.name,
        "path": str(listing.path),
        "tampered": len(pairs) - authentic,
        "authentic": authentic,
        "smallest": _by(sizes[0]) if sizes else "",
        "largest": _by(sizes[-1]) if sizes else "",
    }


def _counts_table(sets: list[dict]) -> str:
    """Counts and resolutions, beside Tables 3 and 4 where the name is one of theirs."""
    from .published import DATASETS

    known = {name.lower(): dataset for name, dataset in DATASETS.items()}
    lines = ["| set | tampered | authentic | resolutions | in the paper |", "|---|---|---|---|---|"]
    for row in sets:
        paper = known.get(row["name"].lower())
        beside = f"{paper.tampered}, {paper.smallest} to {paper.largest}" if paper else ""
        sizes = f"{row['smallest']} to {row['largest']}"
        lines.append(
            f"| {row['name']} | {row['tampered']} | {row['authentic']} | {sizes} | {beside} |"
        )
    return "\n".join(lines)
